//! Key profiles: the few masks that the exact table can be searched under, and templates of the longest-prefix table (SPEC 6.3); headers
//! for tunnels (SPEC 8.2) are shared in the same way.
//!
//! A profile is used by the entries installed, or being installed, under it. One without users keeps its mask until
//! another is needed, since flows of a kind come back.

use simnic_defs::KeyBytes;

/// Number of a profile or header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProfileId(pub u16);

struct Profile<K> {
    /// What the device has been told, when it has.
    mask: Option<K>,
    users: usize,
}

/// The device's profiles; `K` is what each is programmed with.
pub(crate) struct Profiles<K = KeyBytes>(Vec<Profile<K>>);

impl<K: PartialEq + Clone> Profiles<K> {
    pub fn new(n: u16) -> Self {
        Profiles((0..n).map(|_| Profile { mask: None, users: 0 }).collect())
    }

    /// A profile for `mask` with one more user, and whether it must be programmed first; `None` when all are in use by others.
    pub fn acquire(&mut self, mask: &K) -> Option<(ProfileId, bool)> {
        let known = self.0.iter().position(|p| p.mask.as_ref() == Some(mask));
        let i = known
            .or_else(|| self.0.iter().position(|p| p.mask.is_none() && p.users == 0))
            .or_else(|| self.0.iter().position(|p| p.users == 0))?;
        let p = &mut self.0[i];
        p.users += 1;
        if known.is_none() {
            p.mask = Some(mask.clone());
        }
        Some((ProfileId(i as u16), known.is_none()))
    }

    /// One user less.
    pub fn release(&mut self, p: ProfileId) {
        if let Some(p) = self.0.get_mut(usize::from(p.0)) {
            p.users = p.users.saturating_sub(1);
        }
    }

    /// The device did not take the mask; whoever comes next programs it again.
    pub fn forget(&mut self, p: ProfileId) {
        if let Some(p) = self.0.get_mut(usize::from(p.0)) {
            p.mask = None;
        }
    }

    /// Everything is as after a reset.
    pub fn clear(&mut self) {
        for p in &mut self.0 {
            *p = Profile { mask: None, users: 0 };
        }
    }

    /// The mask of a profile.
    pub fn mask(&self, p: ProfileId) -> Option<&K> {
        self.0.get(usize::from(p.0))?.mask.as_ref()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(b: u8) -> KeyBytes {
        [b; simnic_defs::KEY_BYTES]
    }

    #[test]
    fn a_mask_in_use_is_shared_and_an_idle_one_gives_way_last() {
        let mut p = Profiles::new(2);
        assert_eq!(p.acquire(&mask(1)), Some((ProfileId(0), true)));
        assert_eq!(p.acquire(&mask(1)), Some((ProfileId(0), false)));
        p.release(ProfileId(0));
        p.release(ProfileId(0));
        // Idle but known: the unprogrammed one is taken first.
        assert_eq!(p.acquire(&mask(2)), Some((ProfileId(1), true)));
        assert_eq!(p.acquire(&mask(3)), Some((ProfileId(0), true)));
        assert_eq!(p.acquire(&mask(4)), None);
        p.release(ProfileId(1));
        assert_eq!(p.acquire(&mask(4)), Some((ProfileId(1), true)));
        assert_eq!(p.mask(ProfileId(1)), Some(&mask(4)));
    }

    #[test]
    fn a_mask_the_device_refused_is_programmed_again() {
        let mut p = Profiles::new(1);
        assert_eq!(p.acquire(&mask(1)), Some((ProfileId(0), true)));
        p.forget(ProfileId(0));
        p.release(ProfileId(0));
        assert_eq!(p.acquire(&mask(1)), Some((ProfileId(0), true)));
    }
}
