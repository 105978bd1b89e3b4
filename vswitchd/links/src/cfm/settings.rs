//! What the columns `cfm_mpid` and `other_config` of table Interface say (ovs-vswitchd.conf.db(5)).

/// How often messages are sent when nothing is configured, milliseconds.
const INTERVAL_MS: u32 = 1000;
/// Intervals that have a code (IEEE 802.1ag table 21-16), in milliseconds; the first is 10/3.
const CODED_MS: [u32; 7] = [3, 10, 100, 1000, 10_000, 60_000, 600_000];

/// The VLAN of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vlan {
    /// This one; 0 is none.
    Fixed(u16),
    /// Another one for each message.
    Random,
}

/// How checking is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CfmSettings {
    /// This end's identifier.
    pub mpid: u64,
    /// Code of the interval; 0 in extended mode when it has none.
    pub interval: u8,
    /// The interval.
    pub interval_ms: u32,
    /// Extended mode.
    pub extended: bool,
    /// In extended mode: other packets are a sign of life.
    pub demand: bool,
    /// This end is operational.
    pub operational: bool,
    /// VLAN of messages.
    pub vlan: Vlan,
    /// Priority of messages.
    pub priority: u8,
    /// Only messages of tunnels without a key are taken.
    pub check_tunnel_key: bool,
}

impl CfmSettings {
    /// By an identifier and the pairs of `other_config`, of which `get` gives one; `None` when the identifier cannot be had.
    /// `flow_key`: keys of the port's tunnel are a matter of flows.
    pub fn parse<'a>(
        mpid: u64,
        get: impl Fn(&str) -> Option<&'a str>,
        flow_key: bool,
    ) -> Option<CfmSettings> {
        let yes = |k: &str| get(k).is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let number = |k: &str| get(k).and_then(|v| v.trim().parse::<u32>().ok());
        let extended = yes("cfm_extended");
        // IEEE 802.1ag 21.6.4: 1 to 8191.
        if mpid == 0 || !extended && mpid > 8191 {
            return None;
        }
        let wanted = number("cfm_interval").filter(|n| *n > 0).unwrap_or(INTERVAL_MS);
        let code = CODED_MS.iter().rposition(|c| *c <= wanted).unwrap_or(0);
        let coded = CODED_MS[code];
        let (interval, interval_ms) = match extended && coded != wanted {
            true => (0, wanted.min(u16::MAX.into())),
            false => (code as u8 + 1, coded),
        };
        Some(CfmSettings {
            mpid,
            interval,
            interval_ms,
            extended,
            demand: extended && yes("cfm_demand"),
            operational: get("cfm_opstate").is_none_or(|v| v.eq_ignore_ascii_case("up")),
            vlan: match get("cfm_ccm_vlan") {
                Some(v) if v.eq_ignore_ascii_case("random") => Vlan::Random,
                Some(v) => Vlan::Fixed(v.parse().ok().filter(|v| *v < 4096).unwrap_or(0)),
                None => Vlan::Fixed(0),
            },
            priority: number("cfm_ccm_pcp").and_then(|n| u8::try_from(n).ok()).unwrap_or(0) & 7,
            check_tunnel_key: flow_key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mpid: u64, pairs: &[(&str, &'static str)]) -> Option<CfmSettings> {
        CfmSettings::parse(mpid, |k| pairs.iter().find(|(n, _)| *n == k).map(|(_, v)| *v), false)
    }

    #[test]
    fn intervals_are_those_that_have_a_code_unless_extended() {
        let i = |pairs: &[(&str, &'static str)]| of(1, pairs).map(|s| (s.interval, s.interval_ms)).unwrap();
        assert_eq!(i(&[]), (4, 1000));
        assert_eq!(i(&[("cfm_interval", "300")]), (3, 100));
        assert_eq!(i(&[("cfm_interval", "1")]), (1, 3));
        assert_eq!(i(&[("cfm_interval", "9999999")]), (7, 600_000));
        let extended = ("cfm_extended", "true");
        assert_eq!(i(&[("cfm_interval", "300"), extended]), (0, 300));
        assert_eq!(i(&[("cfm_interval", "100"), extended]), (3, 100));
    }

    #[test]
    fn identifiers_have_thirteen_bits_unless_extended() {
        assert!(of(0, &[]).is_none() && of(8192, &[]).is_none());
        assert!(of(8191, &[]).is_some() && of(8192, &[("cfm_extended", "true")]).is_some());
    }

    #[test]
    fn demand_is_of_extended_mode_only() {
        assert!(!of(1, &[("cfm_demand", "true")]).unwrap().demand);
        let s = of(
            1,
            &[
                ("cfm_demand", "true"),
                ("cfm_extended", "true"),
                ("cfm_ccm_vlan", "random"),
                ("cfm_opstate", "down"),
            ],
        );
        let s = s.unwrap();
        assert_eq!((s.demand, s.vlan, s.operational), (true, Vlan::Random, false));
    }
}
