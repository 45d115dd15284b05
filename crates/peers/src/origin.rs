//! The backend that calls us.

use aldis_proto::metadata;
use aldis_types::Domain;
use tonic::{Request, Status};

/// The domain of the calling backend, proven by its certificate.
///
/// Built in two places only: by the federator's ingress, which proves it, and by [`federation_listener`], whose
/// callers are the federator by their workload identity. A check in CI holds that no other place calls
/// [`Origin::proven`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(Domain);

impl Origin {
    /// Vouches that the domain was proven. See the type's rule.
    pub fn proven(domain: Domain) -> Self {
        Self(domain)
    }

    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.0
    }

    /// The origin of a request to a federation service.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(|| Status::unauthenticated("no proven origin"))
    }
}

/// The interceptor of a service's federation listener: takes the origin that the federator states. The listener must
/// accept calls of the federator alone, by its workload certificate or because it listens on loopback only.
#[allow(clippy::result_large_err)]
pub fn federation_listener(mut request: Request<()>) -> Result<Request<()>, Status> {
    let domain: Domain = request
        .metadata()
        .get(metadata::ORIGIN_DOMAIN)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Status::unauthenticated("no proven origin"))?;
    request.extensions_mut().insert(Origin::proven(domain));
    Ok(request)
}
