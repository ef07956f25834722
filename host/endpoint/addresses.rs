//! Which addresses endpoints may reach, whatever name stands for them: names are resolved once for each connection, every address is judged,
//! and the connection goes to one that passed. Knows no endpoint.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Name, Resolve, Resolving};

use super::config::Config;

/// Networks that no remote system has.
const NEVER: [(&str, &str); 10] = [
    ("0.0.0.0/8", "this machine itself"),
    ("::/128", "this machine itself"),
    ("169.254.0.0/16", "link-local, where clouds keep metadata"),
    ("fe80::/10", "link-local"),
    ("fd00:ec2::254/128", "a cloud's metadata"),
    ("100.100.100.200/32", "a cloud's metadata"),
    ("168.63.129.16/32", "a cloud's metadata"),
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
    ("240.0.0.0/4", "reserved"),
];

/// Networks that are not the internet's.
const PRIVATE: [&str; 10] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "192.0.0.0/24",
    "198.18.0.0/15",
    "::1/128",
    "fc00::/7",
    "fec0::/10",
];

static NEVER_NETS: LazyLock<Vec<(IpNet, &str)>> = LazyLock::new(|| NEVER.iter().map(|(text, why)| (known(text), *why)).collect());
static PRIVATE_NETS: LazyLock<Vec<IpNet>> = LazyLock::new(|| PRIVATE.iter().map(|text| known(text)).collect());

fn known(text: &str) -> IpNet {
    text.parse().expect("it is a network")
}

/// What an endpoint's settings say about addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    private: bool,
    allow: Vec<IpNet>,
    refuse: Vec<IpNet>,
}

impl Rules {
    /// Reads the settings. Errors name the config key.
    pub fn new(config: &Config) -> Result<Self, (&'static str, String)> {
        let read = |key, texts: &[String]| -> Result<Vec<IpNet>, (&'static str, String)> {
            let one = |text: &String| {
                let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
                parsed.map_err(|_| (key, format!("\"{text}\" is no network or address, such as \"10.1.0.0/16\" or \"fd00::/8\"")))
            };
            texts.iter().map(one).collect()
        };
        let allow = read("allow_addresses", &config.allow_addresses)?;
        let refuse = read("refuse_addresses", &config.refuse_addresses)?;
        Ok(Self { private: config.allow_private, allow, refuse })
    }

    /// Why an address may not be reached.
    pub fn refusal(&self, address: IpAddr) -> Option<String> {
        let forms = forms(address);
        if forms.iter().any(|form| self.allow.iter().any(|net| net.contains(form))) {
            return None;
        }
        forms.iter().find_map(|form| {
            let never = NEVER_NETS.iter().find(|(net, _)| net.contains(form)).map(|(_, why)| (*why).to_owned());
            let refused = || self.refuse.iter().find(|net| net.contains(form)).map(|net| format!("in {net} of refuse_addresses"));
            let private = || {
                let private = !self.private && PRIVATE_NETS.iter().any(|net| net.contains(form));
                private.then(|| "private, and allow_private is false".to_owned())
            };
            never.or_else(refused).or_else(private)
        })
    }

    /// Why the host of a URL may not be reached, where the URL has an address for a host. Names are judged when they are resolved.
    pub fn literal_refusal(&self, url: &Url) -> Option<String> {
        let address: IpAddr = url.host_str()?.trim_matches(['[', ']']).parse().ok()?;
        self.refusal(address).map(|why| format!("{address} is {why}; if it is meant, add it to allow_addresses"))
    }
}

/// An address, and the IPv4 address that it carries on: all of them decide.
fn forms(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = address else { return vec![address] };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    let carried = match (a, b, c, d, e, f) {
        // ::ffff:1.2.3.4, the same address in other words.
        (0, 0, 0, 0, 0, 0xffff) => return vec![v4(g, h).into()],
        // ::1.2.3.4 and 64:ff9b::1.2.3.4.
        (0, 0, 0, 0, 0, 0) if v6 != Ipv6Addr::LOCALHOST && v6 != Ipv6Addr::UNSPECIFIED => v4(g, h),
        (0x64, 0xff9b, 0, 0, 0, 0) => v4(g, h),
        // 6to4.
        (0x2002, ..) => v4(b, c),
        _ => return vec![address],
    };
    vec![address, carried.into()]
}

/// Whoever turns names into addresses: the machine, or a test.
#[async_trait]
pub trait Names: Send + Sync {
    /// The addresses of a host.
    async fn addresses(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// The machine's own way: its hosts file and DNS.
pub struct Machine;

#[async_trait]
impl Names for Machine {
    async fn addresses(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Gives an HTTP client only addresses that may be reached.
pub struct Guard {
    /// What may be reached.
    pub rules: Arc<Rules>,
    /// Who knows names.
    pub names: Arc<dyn Names>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (rules, names) = (self.rules.clone(), self.names.clone());
        Box::pin(async move {
            let host = name.as_str();
            let mut refused = None;
            let mut good: Vec<SocketAddr> = Vec::new();
            for address in names.addresses(host).await? {
                match rules.refusal(address) {
                    None => good.push(SocketAddr::new(address, 0)),
                    Some(why) => refused = Some(format!("{host} is {address}: {why}; if it is meant, add it to allow_addresses")),
                }
            }
            if good.is_empty() {
                return Err(refused.unwrap_or_else(|| format!("{host} has no address")).into());
            }
            let addresses: reqwest::dns::Addrs = Box::new(good.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(settings: &str) -> Rules {
        let config: Config = toml::from_str(&format!("base_url = \"http://x\"\npath = \"/\"\n{settings}")).unwrap();
        Rules::new(&config).unwrap()
    }

    fn refused(settings: &str, addresses: &[&str]) -> Vec<bool> {
        addresses.iter().map(|address| rules(settings).refusal(address.parse().unwrap()).is_some()).collect()
    }

    #[test]
    fn metadata_is_out_of_reach_in_every_form() {
        let metadata = [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
        ];
        for settings in ["", "allow_private = false"] {
            assert_eq!(refused(settings, &metadata), [true; 11], "{settings}");
        }
        let allowed = "allow_addresses = [\"169.254.169.0/24\"]";
        assert_eq!(refused(allowed, &metadata[..5]), [false; 5]);
        assert_eq!(refused(allowed, &["169.254.1.1"]), [true]);
    }

    #[test]
    fn private_networks_are_reached_unless_told_otherwise() {
        let private = ["10.1.2.3", "127.0.0.1", "::1", "::ffff:127.0.0.1", "192.168.1.1", "172.31.0.1", "100.64.0.1", "fd12::1"];
        assert_eq!(refused("", &private), [false; 8]);
        assert_eq!(refused("allow_private = false", &private), [true; 8]);
        assert_eq!(
            refused("allow_private = false\nallow_addresses = [\"10.1.0.0/16\", \"::1\"]", &private[..4]),
            [false, true, false, true]
        );
        assert_eq!(refused("refuse_addresses = [\"10.0.0.0/8\"]", &private[..2]), [true, false]);
        assert_eq!(refused("allow_private = false", &["93.184.216.34", "2606:2800:220:1::1", "172.32.0.1"]), [false; 3]);
    }

    #[test]
    fn a_url_is_judged_by_the_address_it_means() {
        let rules = rules("");
        for url in [
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0251.0376.0251.0376/",
            "http://169.254.43518/",
            "http://[::ffff:a9fe:a9fe]/",
        ] {
            let refusal = rules.literal_refusal(&Url::parse(url).unwrap());
            assert!(refusal.is_some_and(|why| why.contains("link-local") && why.contains("allow_addresses")), "{url}");
        }
        for url in ["http://2130706433/", "http://localhost./", "http://example.com/"] {
            assert_eq!(rules.literal_refusal(&Url::parse(url).unwrap()), None, "{url}");
        }
    }
}
