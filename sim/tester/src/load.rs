//! What the generator sends: when, how long, of which flow.

use kernel::Rng;

/// Kinds of traffic. Rates are shares of the line rate of the port that sends, 1.0 and less.
#[derive(Clone, PartialEq, Debug)]
pub enum Load {
    /// Evenly spaced frames.
    Fixed {
        /// Share of line rate.
        rate: f64,
    },
    /// Bursts at line rate with pauses in between, so that the mean is `rate`.
    Bursts {
        /// Frames of a burst.
        frames: u64,
        /// Share of line rate, in the mean.
        rate: f64,
    },
    /// Frames at random times, on average `rate`: exponential gaps, never faster than the line.
    Random {
        /// Share of line rate, in the mean.
        rate: f64,
        /// Seed of the gaps.
        seed: u64,
    },
    /// Trains: `frames` frames of a flow at the given rate, then the next flow, none of which was seen before.
    NewFlows {
        /// Frames of each flow.
        frames: u64,
        /// Share of line rate.
        rate: f64,
    },
}

kernel::state!(enum Load {
    0 => Fixed { rate },
    1 => Bursts { frames, rate },
    2 => Random { rate, seed },
    3 => NewFlows { frames, rate },
});

impl Load {
    /// Departure of frame `i` in cycles after the first, when a frame takes `wire` cycles on the wire ([`nic::Config::wire_time`]). Never
    /// before the frame before it has left.
    pub fn departures(&self, frames: u64, wire: f64) -> Vec<u64> {
        let wire = wire.max(1.0);
        let gap = |rate: f64| wire / rate.clamp(1e-6, 1.0);
        match *self {
            Load::Fixed { rate } | Load::NewFlows { rate, .. } => {
                (0..frames).map(|i| (i as f64 * gap(rate)).ceil() as u64).collect()
            }
            Load::Bursts { frames: burst, rate } => {
                let burst = burst.max(1);
                let period = gap(rate) * burst as f64;
                let at = |i: u64| (i / burst) as f64 * period + (i % burst) as f64 * wire;
                (0..frames).map(|i| at(i).ceil() as u64).collect()
            }
            Load::Random { rate, seed } => {
                let mut r = Rng::new(seed);
                let mean = (gap(rate) - wire).max(0.0);
                let mut at = 0.0;
                (0..frames)
                    .map(|_| {
                        let now = at;
                        // (0, 1]
                        let u = ((r.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
                        at += wire - mean * u.ln();
                        now.ceil() as u64
                    })
                    .collect()
            }
        }
    }

    /// Flow of frame `i` among `flows`.
    pub fn flow(&self, i: u64, flows: u32) -> u32 {
        let n = match self {
            Load::NewFlows { frames, .. } => i / (*frames).max(1),
            _ => i,
        };
        (n % u64::from(flows.max(1))) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_has_its_mean_rate_and_is_never_faster_than_the_line() {
        let loads = [
            Load::Fixed { rate: 0.37 },
            Load::Bursts { frames: 16, rate: 0.37 },
            Load::Random { rate: 0.37, seed: 3 },
            Load::NewFlows { frames: 4, rate: 0.37 },
        ];
        for l in loads {
            let d = l.departures(20_000, 7.0);
            assert!(d.windows(2).all(|w| w[1] >= w[0] + 7), "{l:?} is faster than the line");
            let rate = 7.0 * 20_000.0 / d[19_999] as f64;
            assert!((rate - 0.37).abs() < 0.01, "{l:?}: {rate}");
        }
    }
}
