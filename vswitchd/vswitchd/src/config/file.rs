//! The file as it is written: every key optional or not, nothing checked across keys.

use serde::Deserialize;
use toml::Spanned;

use super::{FailMode, LocalPort};

pub(super) type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub daemon: Daemon,
    #[serde(default)]
    pub datapath: Datapath,
    #[serde(default)]
    pub offload: Offload,
    #[serde(default)]
    pub device: Vec<Spanned<Device>>,
    #[serde(default)]
    pub bridge: Vec<Spanned<Bridge>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Daemon {
    pub run_dir: Option<String>,
    pub log_file: Option<String>,
    pub keep_awake: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Datapath {
    pub threads: Option<Spanned<usize>>,
    #[serde(default)]
    pub cores: Vec<Spanned<usize>>,
    pub busy_poll_us: Option<Spanned<i64>>,
    pub buffers: Option<Spanned<u32>>,
    pub max_flows: Option<Spanned<usize>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Offload {
    pub enabled: Option<bool>,
    pub min_pps: Option<u64>,
    pub tc: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Device {
    pub name: Text,
    pub r#type: Text,
    pub profile: Option<Text>,
    #[serde(default)]
    pub wires: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bridge {
    pub name: Text,
    pub datapath_id: Option<Text>,
    #[serde(default)]
    pub local: LocalPort,
    #[serde(default)]
    pub fail_mode: FailMode,
    #[serde(default)]
    pub controllers: Vec<Text>,
    #[serde(default)]
    pub listen: Vec<Text>,
    #[serde(default)]
    pub protocols: Vec<Text>,
    pub offload: Option<bool>,
    #[serde(default)]
    pub port: Vec<Spanned<Port>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub name: Text,
    pub r#type: Text,
    pub ofport: Option<Spanned<u32>>,
    pub device: Option<Text>,
    pub port: Option<Spanned<u16>>,
    pub interface: Option<Text>,
    pub mode: Option<Text>,
    pub peer: Option<Text>,
    pub path: Option<Text>,
    pub out: Option<Text>,
}
