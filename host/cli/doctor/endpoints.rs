//! The doctor's look at endpoints: settings that make sense, hosts that resolve. Calls nothing: a call may cost or change something.

use std::time::Duration;

use super::Report;
use crate::config::Config;
use crate::endpoint::{Endpoints, template};

/// How long a name may take to resolve.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

pub(super) async fn check(config: &Config, report: &mut Report) {
    if config.endpoints.is_empty() {
        return;
    }
    if let Err(error) = Endpoints::new(&config.endpoints) {
        return report.fail("endpoints", error.to_string(), "mend this setting in the config");
    }
    for (name, endpoint) in &config.endpoints {
        let what = format!("endpoint {name}");
        let url = match template::parse_base(&endpoint.base_url) {
            Ok(url) => url,
            Err(reason) => {
                report.fail(what, reason, format!("mend endpoints.{name}.base_url"));
                continue;
            }
        };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or_default();
        match tokio::time::timeout(RESOLVE_MAX, tokio::net::lookup_host((host.as_str(), port))).await {
            Ok(Ok(mut found)) => match found.next() {
                Some(address) => report.ok(what, format!("{host} is {}", address.ip())),
                None => {
                    report.away(what, format!("{host} has no address"), format!("check endpoints.{name}.base_url and this machine's DNS"))
                }
            },
            Ok(Err(error)) => {
                report.away(
                    what,
                    format!("{host} does not resolve: {error}"),
                    format!("check endpoints.{name}.base_url and this machine's DNS"),
                );
            }
            Err(_) => report.away(what, format!("{host} did not resolve within {} s", RESOLVE_MAX.as_secs()), "check this machine's DNS"),
        }
    }
}
