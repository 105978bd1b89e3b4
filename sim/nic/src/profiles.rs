//! Profiles of devices by name: those in `profiles/`, which are part of the program, and files of the user's.
//!
//! Neither cycle-level nor behavioural: numbers for both.

use std::path::Path;

use crate::config::{Config, ConfigError};

/// A profile that comes with the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Its name: that of its file, without the extension.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

/// All of them, the default first.
pub const PROFILES: [Profile; 5] = [
    Profile { name: "default", text: include_str!("../profiles/default.toml") },
    Profile { name: "flow-engine", text: include_str!("../profiles/flow-engine.toml") },
    Profile { name: "match-action", text: include_str!("../profiles/match-action.toml") },
    Profile { name: "small-nic", text: include_str!("../profiles/small-nic.toml") },
    Profile { name: "tcam-poor-asic", text: include_str!("../profiles/tcam-poor-asic.toml") },
];

/// Why there is no such profile.
#[derive(thiserror::Error, Debug)]
pub enum ProfileError {
    /// It is neither the name of a profile nor a file that can be read.
    #[error("{name}: {why}; profiles that need no file: {}", known())]
    File {
        /// What was asked for.
        name: String,
        /// The operating system's words. Part of the message, so not its source: both would be printed.
        why: std::io::Error,
    },
    /// It says something that no device can be.
    #[error("{name}: {why}")]
    Config {
        /// What was asked for.
        name: String,
        /// Line, key and reason; likewise.
        why: ConfigError,
    },
}

fn known() -> String {
    PROFILES.map(|p| p.name).join(", ")
}

impl Config {
    /// The profile that comes with the program under `name`, or the one in the file of that name.
    ///
    /// # Errors
    /// [`ProfileError::File`] when there is neither, [`ProfileError::Config`] when it is nonsensical.
    pub fn profile(name: &str) -> Result<Config, ProfileError> {
        let ours = PROFILES.iter().find(|p| p.name == name);
        let text = match ours {
            Some(p) => p.text.to_string(),
            None => std::fs::read_to_string(Path::new(name))
                .map_err(|why| ProfileError::File { name: name.into(), why })?,
        };
        Config::from_toml(&text).map_err(|why| ProfileError::Config { name: name.into(), why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_sensible_and_says_what_it_is() {
        for p in PROFILES {
            let c = Config::profile(p.name).unwrap();
            assert!(!c.profile.about.is_empty(), "{}", p.name);
            crate::SimNic::new(c, 1).unwrap();
        }
        assert_eq!(Config::profile("default").unwrap(), Config::default());
    }

    #[test]
    fn a_name_that_is_none_lists_those_there_are() {
        let e = Config::profile("no-such").unwrap_err().to_string();
        assert!(e.starts_with("no-such: No such file") && e.contains("flow-engine"), "{e}");
    }

    #[test]
    fn files_are_read_and_their_errors_name_key_line_and_reason() {
        let dir = std::env::temp_dir().join(format!("profile-{}", std::process::id()));
        std::fs::write(&dir, "[exact]\nprofiles = 2\nbanks = 4\n").unwrap();
        let e = Config::profile(dir.to_str().unwrap()).unwrap_err().to_string();
        std::fs::remove_file(&dir).unwrap();
        assert!(
            e.ends_with("line 3: exact.banks: 4 tables, but 2 key profiles to be searched in them"),
            "{e}"
        );
    }
}
