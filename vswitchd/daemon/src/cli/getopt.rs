//! Command lines in the manner of GNU getopt_long: options and arguments in any order, `--name=value`, `--name value`,
//! unique abbreviations, bundled short options, `--` ends options. The errors are glibc's words, which scripts and tests of
//! the stock daemons look for.

/// What an option takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// A value: `--name=VALUE`, `--name VALUE`, `-nVALUE`, `-n VALUE`.
    Value,
    /// Perhaps a value, which is then attached: `--name=VALUE`, `-nVALUE`.
    Perhaps,
}

/// An option that a program knows.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Long name, without dashes; also the name under which it is reported.
    pub long: &'static str,
    /// Short name.
    pub short: Option<char>,
    /// What it takes.
    pub takes: Takes,
}

impl Opt {
    /// A long option.
    pub const fn long(long: &'static str, takes: Takes) -> Opt {
        Opt { long, short: None, takes }
    }

    /// An option with a short name as well.
    pub const fn short(short: char, long: &'static str, takes: Takes) -> Opt {
        Opt { long, short: Some(short), takes }
    }
}

/// Why a command line is wrong. Printed after the program's name.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum UsageError {
    #[error("unrecognized option '--{0}'")]
    Unrecognized(String),
    #[error("invalid option -- '{0}'")]
    Invalid(char),
    #[error("option '--{given}' is ambiguous; possibilities:{possible}")]
    Ambiguous { given: String, possible: String },
    #[error("option '--{0}' requires an argument")]
    Missing(&'static str),
    #[error("option requires an argument -- '{0}'")]
    MissingShort(char),
    #[error("option '--{0}' doesn't allow an argument")]
    Unwanted(&'static str),
    #[error("argument is not valid UTF-8: {0}")]
    NotUtf8(String),
    #[error("{0}")]
    Other(String),
}

/// An option that was given: its long name and value.
pub type Given = (&'static str, Option<String>);

/// Options in order, and the other arguments in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Split {
    /// Options, in the order given.
    pub options: Vec<Given>,
    /// Arguments that are no options.
    pub arguments: Vec<String>,
}

/// Takes a command line (without the program's name) apart.
///
/// # Errors
/// [`UsageError`], the first that there is.
pub fn split(known: &[&Opt], line: impl IntoIterator<Item = String>) -> Result<Split, UsageError> {
    let mut out = Split::default();
    let mut line = line.into_iter();
    while let Some(word) = line.next() {
        if word == "--" {
            out.arguments.extend(line);
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            let (name, attached) = match long.split_once('=') {
                Some((n, v)) => (n, Some(v.to_owned())),
                None => (long, None),
            };
            let o = find(known, name)?;
            let value = match (o.takes, attached) {
                (Takes::Nothing, Some(_)) => return Err(UsageError::Unwanted(o.long)),
                (Takes::Value, None) => Some(line.next().ok_or(UsageError::Missing(o.long))?),
                (_, attached) => attached,
            };
            out.options.push((o.long, value));
        } else if word.len() > 1 && word.starts_with('-') {
            let mut letters = word[1..].chars();
            while let Some(c) = letters.next() {
                let o = known.iter().find(|o| o.short == Some(c)).ok_or(UsageError::Invalid(c))?;
                let rest = letters.as_str();
                let value = match o.takes {
                    Takes::Nothing => None,
                    Takes::Perhaps => (!rest.is_empty()).then(|| rest.to_owned()),
                    Takes::Value if rest.is_empty() => Some(line.next().ok_or(UsageError::MissingShort(c))?),
                    Takes::Value => Some(rest.to_owned()),
                };
                out.options.push((o.long, value));
                if o.takes != Takes::Nothing {
                    break;
                }
            }
        } else {
            out.arguments.push(word);
        }
    }
    Ok(out)
}

/// The option of a name, or of which it is the only abbreviation.
fn find<'a>(known: &[&'a Opt], name: &str) -> Result<&'a Opt, UsageError> {
    if let Some(o) = known.iter().find(|o| o.long == name) {
        return Ok(o);
    }
    let possible: Vec<_> = known.iter().filter(|o| o.long.starts_with(name)).collect();
    match possible[..] {
        [] => Err(UsageError::Unrecognized(name.to_owned())),
        [o] => Ok(o),
        _ => Err(UsageError::Ambiguous {
            given: name.to_owned(),
            possible: possible.iter().map(|o| format!(" '--{}'", o.long)).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTS: [Opt; 5] = [
        Opt::short('v', "verbose", Takes::Perhaps),
        Opt::short('V', "version", Takes::Nothing),
        Opt::short('p', "private-key", Takes::Value),
        Opt::long("pidfile", Takes::Perhaps),
        Opt::long("detach", Takes::Nothing),
    ];

    fn run(line: &[&str]) -> Result<Split, String> {
        let known: Vec<&Opt> = OPTS.iter().collect();
        split(&known, line.iter().map(|s| (*s).to_owned())).map_err(|e| e.to_string())
    }

    fn given(line: &[&str]) -> Vec<String> {
        let s = run(line).unwrap();
        let options = s.options.into_iter().map(|(n, v)| match v {
            Some(v) => format!("{n}={v}"),
            None => n.to_owned(),
        });
        options.chain(s.arguments).collect()
    }

    #[test]
    fn options_and_arguments_come_in_any_order_and_form() {
        assert_eq!(
            given(&["a", "--detach", "-vx:dbg", "-v", "b", "--pidfile", "--pidfile=f", "-p", "k", "-pl"]),
            [
                "detach",
                "verbose=x:dbg",
                "verbose",
                "pidfile",
                "pidfile=f",
                "private-key=k",
                "private-key=l",
                "a",
                "b"
            ]
        );
        assert_eq!(given(&["--private-key", "--detach"]), ["private-key=--detach"]);
        assert_eq!(given(&["--det", "--", "--det", "-"]), ["detach", "--det", "-"]);
        assert_eq!(given(&["-Vvx", "-"]), ["version", "verbose=x", "-"]);
    }

    #[test]
    fn errors_are_in_glibcs_words() {
        for (line, words) in [
            (&["--foo"][..], "unrecognized option '--foo'"),
            (&["-Q"], "invalid option -- 'Q'"),
            (&["--detach=3"], "option '--detach' doesn't allow an argument"),
            (&["--priv"], "option '--private-key' requires an argument"),
            (&["-p"], "option requires an argument -- 'p'"),
            (&["--ver"], "option '--ver' is ambiguous; possibilities: '--verbose' '--version'"),
        ] {
            assert_eq!(run(line).unwrap_err(), words);
        }
    }
}
