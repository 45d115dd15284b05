//! The label table: every error that a client can see. Rows are added, never renamed.

/// One row: HTTP status, label, and the text that goes with it unless a better one is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// HTTP status, which is also `code` in the body.
    pub status: u16,
    /// `label` in the body, on which clients branch.
    pub label: &'static str,
    /// `message` in the body.
    pub message: &'static str,
}

macro_rules! labels {
    ($($name:ident = $status:literal $label:literal $message:literal;)*) => {
        $(
            #[doc = concat!("`", $status, " ", $label, "`: ", $message, ".")]
            pub const $name: Label = Label { status: $status, label: $label, message: $message };
        )*

        /// Every row.
        pub const ALL: &[Label] = &[$($name),*];
    };
}

labels! {
    // Any route.
    BAD_REQUEST = 400 "bad-request" "The request is malformed";
    CLIENT_ERROR = 400 "client-error" "The request cannot be processed";
    INVALID_COMPRESSION = 400 "client-error" "Invalid request body compression";
    INVALID_TOKEN_401 = 401 "invalid-credentials" "Missing, expired or invalid access token";
    ACCESS_TYPE = 403 "access-denied" "This kind of token is not allowed here";
    NOT_FOUND = 404 "not-found" "Not found";
    NO_ENDPOINT = 404 "no-endpoint" "The requested endpoint does not exist";
    UNSUPPORTED_VERSION = 404 "unsupported-version" "This API version is not supported";
    METHOD_NOT_ALLOWED = 405 "method-not-allowed" "The endpoint does not support this method";
    TIMEOUT = 408 "client-error" "The request took too long";
    TOO_LARGE = 413 "client-error" "The request body is too large";
    UNSUPPORTED_MEDIA_TYPE = 415 "client-error" "Unsupported media type";
    TOO_MANY_REQUESTS = 420 "too-many-requests" "Too many requests, try again later";
    SERVER_ERROR = 500 "server-error" "Internal server error";
    NOT_IMPLEMENTED = 501 "not-implemented" "This feature is not available yet";
    OVERLOADED = 503 "overloaded" "The backend is busy, try again later";

    // Login, access, cookies.
    INVALID_CREDENTIALS = 403 "invalid-credentials" "Authentication failed.";
    MISSING_COOKIE_AND_TOKEN = 403 "invalid-credentials" "Missing cookie and token";
    MISSING_COOKIE = 403 "invalid-credentials" "Missing cookie";
    MISSING_TOKEN = 403 "invalid-credentials" "Missing token";
    INVALID_ZAUTH = 403 "invalid-credentials" "Invalid zauth token";
    INVALID_TOKEN = 403 "invalid-credentials" "Invalid token";
    EXPIRED_ZAUTH = 403 "invalid-credentials" "Zauth token expired";
    SUSPENDED = 403 "suspended" "The account is suspended";
    PENDING_ACTIVATION = 403 "pending-activation" "The account is not activated yet";
    TOO_MANY_FAILED_LOGINS = 403 "client-error" "Too many failed logins";
    LOGINS_TOO_FREQUENT = 429 "client-error" "Logins too frequent";
    PASSWORDS_OVERLOADED = 429 "too-many-requests" "Too many passwords are being checked, try again later";
    MISSING_AUTH = 403 "missing-auth" "Re-authentication by password is required";

    // Registration and activation.
    INVALID_EMAIL = 400 "invalid-email" "The e-mail address is not valid";
    INVALID_CODE = 404 "invalid-code" "The activation code is wrong or has expired";
    KEY_EXISTS = 409 "key-exists" "The e-mail address is in use";
    USER_CREATION_RESTRICTED = 403 "user-creation-restricted" "Accounts are created by the administrator of this backend";
    UNAUTHORIZED_EMAIL = 403 "unauthorized" "Addresses of this e-mail domain cannot register here";
    EPHEMERAL_DISABLED = 403 "ephemeral-user-creation-disabled" "Accounts without e-mail address cannot be created";
    TOO_MANY_CODES = 429 "too-many-requests" "Too many codes were requested for this address, try again later";
    INVALID_INVITATION_CODE = 400 "invalid-invitation-code" "The invitation code is not valid";
    INVALID_RESET_CODE = 400 "invalid-code" "The code for a new password is wrong or has expired";
    INVALID_KEY = 400 "invalid-key" "The key is not one that was mailed";
    INVALID_DELETION_CODE = 403 "invalid-code" "The code for the deletion is wrong or has expired";
    PENDING_DELETE = 403 "pending-delete" "The deletion waits for its confirmation by mail";
    LAST_IDENTITY = 403 "last-identity" "The only e-mail address of the account cannot be removed";
    PASSWORD_MUST_DIFFER = 409 "password-must-differ" "The new password must differ from the old one";

    // Self, users, search, properties.
    INVALID_HANDLE = 400 "invalid-handle" "The handle is not valid";
    HANDLE_EXISTS = 409 "handle-exists" "The handle is taken";
    NO_IDENTITY = 403 "no-identity" "The account has no verified e-mail address";
    INSUFFICIENT_PERMISSIONS = 403 "insufficient-permissions" "Insufficient permissions";
    TOO_MANY_PROPERTIES = 403 "too-many-properties" "Too many properties";
    PROPERTY_KEY_TOO_LARGE = 403 "property-key-too-large" "The property key is too large";
    PROPERTY_VALUE_TOO_LARGE = 403 "property-value-too-large" "The property value is too large";
    MLS_PROTOCOL_ERROR_409 = 409 "mls-protocol-error" "MLS cannot be removed from the supported protocols";

    // Clients and prekeys.
    MALFORMED_PREKEYS = 400 "bad-request" "Malformed prekeys uploaded";
    TOO_MANY_CLIENTS = 403 "too-many-clients" "Too many clients";
    CLIENT_NOT_FOUND = 404 "client-not-found" "Client not found";
    MLS_DUPLICATE_PUBLIC_KEY = 400 "mls-duplicate-public-key" "The client has another key for this signature scheme";
    CAPABILITIES_CANNOT_BE_REMOVED = 409 "client-capabilities-cannot-be-removed" "Client capabilities cannot be removed";

    // Connections.
    INVALID_USER = 400 "invalid-user" "The user does not exist or cannot be connected with";
    BAD_CONN_UPDATE = 403 "bad-conn-update" "The connection cannot change to this status";
    CONNECTION_LIMIT = 403 "connection-limit" "Too many connections";
    NOT_CONNECTED = 403 "not-connected" "Users are not connected";
    TEAM_NOT_FEDERATING = 403 "team-not-federating" "The target user is owned by a team that does not federate with this backend";

    // Conversations and messages.
    NO_CONVERSATION = 404 "no-conversation" "Conversation not found";
    NO_CONVERSATION_MEMBER = 404 "no-conversation-member" "Conversation member not found";
    ACCESS_DENIED = 403 "access-denied" "Conversation access denied";
    ACTION_DENIED = 403 "action-denied" "Insufficient authorization";
    INVALID_OP = 403 "invalid-op" "Invalid operation";
    OPERATION_DENIED = 403 "operation-denied" "Operation denied";
    TOO_MANY_MEMBERS = 403 "too-many-members" "Maximum number of members per conversation reached";
    NO_TEAM_MEMBER = 403 "no-team-member" "Requesting user is not a team member";
    MLS_NOT_ENABLED = 400 "mls-not-enabled" "MLS is not enabled on this backend";
    CHANNELS_NOT_ENABLED = 403 "channels-not-enabled" "Channels are not available on this backend";
    NO_CONVERSATION_CODE = 404 "no-conversation-code" "Conversation code not found";
    GUEST_LINKS_DISABLED = 409 "guest-links-disabled" "Guest links are not available on this backend";
    UNKNOWN_CLIENT = 403 "unknown-client" "Unknown client";
    NON_BINDING_TEAM = 404 "non-binding-team" "Not a member of a binding team";

    // Notifications and push.
    MALFORMED_REQUEST = 400 "malformed-request" "The WebSocket handshake is malformed";
    APNS_VOIP_NOT_SUPPORTED = 400 "apns-voip-not-supported" "Voice over IP pushes are not supported";
    TOKEN_TOO_LONG = 413 "token-too-long" "The push token is too long";
    APP_NOT_FOUND = 404 "app-not-found" "The app is not known to this backend's push configuration";

    // Assets.
    ASSET_EMPTY = 400 "invalid-length" "The asset is empty or its length is not stated";
    ASSET_INCOMPLETE = 400 "incomplete-body" "The body ends before the stated length of the asset";
    ASSET_DIGEST = 400 "client-error" "The asset does not fit its Content-MD5";
    ASSET_UNAUTHORISED = 403 "unauthorised" "Only the uploader of an asset can do this";
    ASSET_NOT_ALLOWED = 403 "asset-not-allowed" "The rules of this backend do not allow assets of this size or type";
    ASSET_TOO_LARGE = 413 "client-error" "Asset too large";
    RANGE_NOT_SATISFIABLE = 416 "range-not-satisfiable" "The asset ends before the range that is asked for";

    // Start-up stubs.
    CUSTOM_BACKEND_NOT_FOUND = 404 "custom-backend-not-found" "No custom backend is registered for this domain";
    NO_TEAM = 404 "no-team" "Team not found";

    // Federation.
    FEDERATION_NOT_ENABLED = 400 "federation-not-enabled" "Federation is not enabled on this backend";
    FEDERATION_DENIED = 400 "federation-denied" "This backend does not federate with the target domain";
    DISCOVERY_FAILURE = 400 "discovery-failure" "The DNS look-up of the target domain failed";
    INVALID_DOMAIN = 422 "invalid-domain" "The target domain has no federation record in DNS";
    FEDERATION_NOT_IMPLEMENTED = 422 "federation-not-implemented" "The operation is not available across backends";
    FEDERATION_NOT_AVAILABLE = 500 "federation-not-available" "The local federator is not available";
    FEDERATION_LOCAL_ERROR = 500 "federation-local-error" "The local federator failed";
    FEDERATION_CONNECTION_REFUSED = 521 "federation-connection-refused" "The target backend cannot be reached";
    FEDERATION_TLS_ERROR = 525 "federation-tls-error" "No trusted connection to the target backend";
    FEDERATION_HTTP2_ERROR = 533 "federation-http2-error" "The connection to the target backend failed";
    FEDERATION_REMOTE_ERROR = 533 "federation-remote-error" "The target backend refused or failed";
    FEDERATION_INVALID_BODY = 533 "federation-invalid-body" "The target backend's answer cannot be understood";
    FEDERATION_VERSION_ERROR = 533 "federation-version-error" "No common federation version with the target backend";
}

/// What any route can answer, whatever it reads.
pub const GENERAL: [Label; 5] = [TIMEOUT, UNSUPPORTED_MEDIA_TYPE, TOO_MANY_REQUESTS, SERVER_ERROR, OVERLOADED];

/// What a route can answer that asks another backend.
pub const FEDERATION: [Label; 13] = [
    FEDERATION_NOT_ENABLED,
    FEDERATION_DENIED,
    DISCOVERY_FAILURE,
    INVALID_DOMAIN,
    FEDERATION_NOT_IMPLEMENTED,
    FEDERATION_NOT_AVAILABLE,
    FEDERATION_LOCAL_ERROR,
    FEDERATION_CONNECTION_REFUSED,
    FEDERATION_TLS_ERROR,
    FEDERATION_HTTP2_ERROR,
    FEDERATION_REMOTE_ERROR,
    FEDERATION_INVALID_BODY,
    FEDERATION_VERSION_ERROR,
];

/// The federation row with this label; `None` when there is none.
pub fn federation(label: &str) -> Option<Label> {
    FEDERATION.into_iter().find(|row| row.label == label)
}
