//! Where Redis is and how to log in.

/// Where Redis is and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Host name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User of the access list; `None` is the default user.
    pub user: Option<String>,
    /// Password; without one no AUTH is sent.
    pub password: Option<String>,
    /// Database to select.
    pub database: u32,
}
