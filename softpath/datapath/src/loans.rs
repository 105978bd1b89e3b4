//! Connections lent to hardware, in the terms of [`datapath_api`].

use clock::Instant;
use conntrack::{Stays, Tuple};
use datapath_api::{ConnectionEnds, ConnectionLoans, LoanTerms};

use crate::datapath::SoftDatapath;

fn tuple(c: &ConnectionEnds) -> Tuple {
    let ConnectionEnds { v6, proto, zone, src, dst, sport, dport } = *c;
    Tuple { src, dst, sport, dport, zone, proto, icmp_type: 0, v6 }
}

fn ends(t: &Tuple) -> ConnectionEnds {
    let Tuple { src, dst, sport, dport, zone, proto, v6, .. } = *t;
    ConnectionEnds { v6, proto, zone, src, dst, sport, dport }
}

/// The reason in words.
fn words(s: Stays) -> &'static str {
    match s {
        Stays::NotEstablished => "not established",
        Stays::Protocol => "neither TCP nor UDP",
        Stays::Translated => "translated (nat)",
        Stays::Labelled => "with a label (ct_label)",
        Stays::Helper => "with a helper (alg)",
        Stays::Windows => "TCP whose sequence numbers are checked (dpctl/ct-disable-tcp-seq-chk)",
    }
}

impl ConnectionLoans for SoftDatapath {
    fn set_lending(&self, on: bool) {
        self.connections().set_lending(on);
    }

    fn offer_again(&self) {
        self.connections().offer_again();
    }

    fn take_offers(&self, most: usize) -> Vec<ConnectionEnds> {
        self.connections().take_offers(most).iter().map(ends).collect()
    }

    fn take_changed(&self) -> (Vec<ConnectionEnds>, bool) {
        let (some, all) = self.connections().take_changed();
        (some.iter().map(ends).collect(), all)
    }

    fn lend(&self, c: &ConnectionEnds, now: Instant) -> Option<Result<LoanTerms, &'static str>> {
        let terms = self.connections().lend(&tuple(c), now)?;
        Some(terms.map(|t| LoanTerms { mark: t.mark, timeout: t.timeout }).map_err(words))
    }

    fn used(&self, c: &ConnectionEnds, at: Instant) {
        self.connections().used(&tuple(c), at);
    }

    fn take_back(&self, c: &ConnectionEnds, again: bool) {
        self.connections().take_back(&tuple(c), again);
    }

    fn stayed(&self) -> Vec<(&'static str, u64)> {
        self.connections().stayed().filter(|(_, n)| *n > 0).map(|(s, n)| (words(s), n)).collect()
    }
}
