//! Where a collector of OpenTelemetry takes metrics.

use std::{fmt, net::SocketAddr, str::FromStr};

use hyper::Uri;

/// The path of a collector, where an endpoint names none.
const PATH: &str = "/v1/metrics";

/// Where a collector takes metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// The path, with a query.
    pub path: String,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it like http://127.0.0.1:4318 or http://[::1]:4318/v1/metrics";
        let uri: Uri = text.parse().map_err(|_| FORM.to_owned())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("https is not spoken: push to a collector on this host".into());
            }
            _ => return Err(FORM.into()),
        }
        let authority = uri.authority().ok_or(FORM)?.as_str();
        let local = authority.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address = local.as_deref().unwrap_or(authority).parse().map_err(|_| {
            format!("{authority}: an address and a port, not a name: names are not looked up")
        })?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path == "/" { PATH } else { path };
        Ok(Self { address, path: path.to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_an_address_and_a_path() {
        let shown = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
        let same = [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/metrics"),
            ("http://localhost:4318/", "http://127.0.0.1:4318/v1/metrics"),
            (
                "http://[fe80::1]:80/api/v1/otlp/v1/metrics",
                "http://[fe80::1]:80/api/v1/otlp/v1/metrics",
            ),
            ("http://10.0.0.7:9090/x?y=1", "http://10.0.0.7:9090/x?y=1"),
        ];
        for (text, expected) in same {
            assert_eq!(shown(text).as_deref(), Ok(expected));
        }
        for (text, error) in [
            ("https://127.0.0.1:4318", "https is not spoken"),
            ("http://collector:4318", "not a name"),
            ("http://user@127.0.0.1:4318", "not a name"),
            ("http://127.0.0.1", "an address and a port"),
            ("127.0.0.1:4318", "write it like"),
            ("ftp://127.0.0.1:4318", "write it like"),
            ("", "write it like"),
            ("http://127.0.0.1:4318/a b", "write it like"),
        ] {
            assert!(shown(text).is_err_and(|told| told.contains(error)), "{text}");
        }
    }
}
