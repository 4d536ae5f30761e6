//! The link to Redis.

pub mod url;

pub use url::RedisUrl;
