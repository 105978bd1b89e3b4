//! The random numbers of CPython's `random.Random`: Mersenne Twister 19937 (Matsumoto and Nishimura 1998), seeded by
//! `init_by_array`, with CPython 3.11's ways of making ranges, choices and permutations of them. So the same inputs can
//! be made by a Python program of three lines, which is what the published figures were measured with.

const N: usize = 624;
const M: usize = 397;

/// A seeded generator.
pub struct Random {
    state: [u32; N],
    index: usize,
}

impl Random {
    /// As `random.Random(seed)`.
    pub fn new(seed: u64) -> Self {
        let words = [seed as u32, (seed >> 32) as u32];
        let key = if words[1] == 0 { &words[..1] } else { &words[..] };
        let mut r = Random { state: [0; N], index: N };
        r.init(19_650_218);
        let s = &mut r.state;
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            let mixed = (s[i - 1] ^ s[i - 1] >> 30).wrapping_mul(1_664_525);
            s[i] = (s[i] ^ mixed).wrapping_add(key[j]).wrapping_add(j as u32);
            i += 1;
            j = (j + 1) % key.len();
            if i == N {
                s[0] = s[N - 1];
                i = 1;
            }
        }
        for _ in 0..N - 1 {
            let mixed = (s[i - 1] ^ s[i - 1] >> 30).wrapping_mul(1_566_083_941);
            s[i] = (s[i] ^ mixed).wrapping_sub(i as u32);
            i += 1;
            if i == N {
                s[0] = s[N - 1];
                i = 1;
            }
        }
        s[0] = 0x8000_0000;
        r
    }

    fn init(&mut self, seed: u32) {
        self.state[0] = seed;
        for i in 1..N {
            let p = self.state[i - 1];
            self.state[i] = (p ^ p >> 30).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = self.state[i] & 0x8000_0000 | self.state[(i + 1) % N] & 0x7fff_ffff;
            let odd = if y & 1 != 0 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ y >> 1 ^ odd;
        }
        self.index = 0;
    }

    fn next(&mut self) -> u32 {
        if self.index == N {
            self.twist();
        }
        let mut y = self.state[self.index];
        self.index += 1;
        y ^= y >> 11;
        y ^= y << 7 & 0x9d2c_5680;
        y ^= y << 15 & 0xefc6_0000;
        y ^ y >> 18
    }

    /// `getrandbits(bits)`, 1 to 128 bits.
    ///
    /// # Panics
    /// If `bits` is not from 1 to 128.
    pub fn bits(&mut self, bits: u32) -> u128 {
        assert!((1..=128).contains(&bits), "{bits} random bits");
        let (mut v, mut at) = (0, 0);
        while at < bits {
            let take = (bits - at).min(32);
            v |= u128::from(self.next() >> (32 - take)) << at;
            at += 32;
        }
        v
    }

    /// `random()`: 53 bits, from 0 (included) to 1 (excluded).
    pub fn unit(&mut self) -> f64 {
        let (a, b) = (self.next() >> 5, self.next() >> 6);
        (f64::from(a) * 67_108_864.0 + f64::from(b)) * (1.0 / 9_007_199_254_740_992.0)
    }

    /// `randrange(n)`: below `n`.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "nothing is below zero");
        let bits = 32 - n.leading_zeros();
        loop {
            let r = self.bits(bits) as u32;
            if r < n {
                return r;
            }
        }
    }

    /// `choice(items)`.
    ///
    /// # Panics
    /// If `items` is empty.
    pub fn choice<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u32) as usize]
    }

    /// `shuffle(items)`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}
