//! Why a statement failed, in the terms in which its caller must decide.

use scylla::errors::{DbError, ExecutionError, PagerExecutionError, PrepareError, RequestAttemptError, WriteType};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What a failure means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was done: too few replicas could be reached, or none could take the request now. Worth trying again later.
    Unavailable,
    /// The outcome is not known: a write may have been done, or may still be.
    Unsure,
    /// Nothing was done, and trying again makes no difference.
    Refused,
}

impl Failure {
    /// As a label of metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Unsure => "unsure",
            Self::Refused => "refused",
        }
    }
}

/// A statement that failed. The text names the statement and never a value.
#[derive(Debug, thiserror::Error)]
#[error("statement `{statement}` ({})", failure.as_str())]
pub struct CqlError {
    /// The name of the statement.
    pub statement: &'static str,
    /// What the failure means.
    pub failure: Failure,
    /// What the driver said.
    #[source]
    pub source: Option<Source>,
}

impl CqlError {
    pub(super) fn new(statement: &'static str, failure: Failure, source: impl Into<Source>) -> Self {
        Self { statement, failure, source: Some(source.into()) }
    }

    /// A failure to read what came back, or to write down what was to be sent.
    pub(super) fn refused(statement: &'static str, source: impl Into<Source>) -> Self {
        Self::new(statement, Failure::Refused, source)
    }

    pub(super) fn execution(statement: &'static str, error: ExecutionError) -> Self {
        Self::new(statement, of_execution(&error), error)
    }

    pub(super) fn paging(statement: &'static str, error: PagerExecutionError) -> Self {
        let failure = match &error {
            PagerExecutionError::PrepareError(error) => of_preparation(error),
            PagerExecutionError::SerializationError(_) => Failure::Refused,
            // Pages are only read.
            _ => Failure::Unavailable,
        };
        Self::new(statement, failure, error)
    }

    pub(super) fn preparation(statement: &'static str, error: PrepareError) -> Self {
        Self::new(statement, of_preparation(&error), error)
    }
}

fn of_preparation(error: &PrepareError) -> Failure {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt: RequestAttemptError::DbError(error, _) } => of_server(error),
        _ => Failure::Unavailable,
    }
}

fn of_execution(error: &ExecutionError) -> Failure {
    match error {
        ExecutionError::BadQuery(_) | ExecutionError::UseKeyspaceError(_) => Failure::Refused,
        ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) => Failure::Unavailable,
        ExecutionError::PrepareError(error) => of_preparation(error),
        ExecutionError::LastAttemptError(error) => of_attempt(error),
        _ => Failure::Unsure,
    }
}

fn of_attempt(error: &RequestAttemptError) -> Failure {
    match error {
        RequestAttemptError::SerializationError(_)
        | RequestAttemptError::CqlRequestSerialization(_)
        | RequestAttemptError::RepreparedIdChanged { .. }
        | RequestAttemptError::RepreparedIdMissingInBatch => Failure::Refused,
        RequestAttemptError::UnableToAllocStreamId => Failure::Unavailable,
        RequestAttemptError::DbError(error, _) => of_server(error),
        _ => Failure::Unsure,
    }
}

fn of_server(error: &DbError) -> Failure {
    match error {
        // Of a batch that was logged the rest follows by itself.
        DbError::Unavailable { .. }
        | DbError::Overloaded
        | DbError::IsBootstrapping
        | DbError::RateLimitReached { .. }
        | DbError::WriteTimeout { write_type: WriteType::BatchLog, .. }
        | DbError::ReadTimeout { .. }
        | DbError::ReadFailure { .. } => Failure::Unavailable,
        DbError::WriteTimeout { .. }
        | DbError::WriteFailure { .. }
        | DbError::ServerError
        | DbError::TruncateError
        | DbError::Other(_) => Failure::Unsure,
        _ => Failure::Refused,
    }
}
