//! Networks of addresses, as settings list them.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks and single addresses, such as `10.0.0.0/8` and `192.0.2.1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads the value of the setting `key`; a refusal names key, value and what is allowed.
    pub fn parse(key: &str, list: &[String]) -> Result<Self, String> {
        let parse = |text: &String| {
            let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            net.ok_or_else(|| format!("`{key}` has {text:?}; allowed: networks like \"10.0.0.0/8\" or addresses"))
        };
        list.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the address is in one of them. An IPv4 address counts as itself when it comes mapped into IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }
}
