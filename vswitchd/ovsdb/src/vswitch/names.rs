//! Table and column names, a module a table.
//!
//! A name that is misspelt then does not compile. What a column means and which keys its maps have is in
//! ovs-vswitchd.conf.db(5).

macro_rules! names {
    ($($module:ident = $table:literal { $($constant:ident = $column:literal,)* })*) => {
        $(
            #[doc = concat!("Columns of table `", $table, "`.")]
            pub mod $module {
                /// The table's name.
                pub const TABLE: &str = $table;
                $(
                    #[doc = concat!("Column `", $column, "`.")]
                    pub const $constant: &str = $column;
                )*
            }
        )*
        /// Every table with its columns, in the schema file's order.
        pub const TABLES: &[(&str, &[&str])] = &[$(($table, &[$($column),*])),*];
    };
}

names! {
    open_vswitch = "Open_vSwitch" {
        DATAPATHS = "datapaths", BRIDGES = "bridges", SSL = "ssl", NEXT_CFG = "next_cfg", CUR_CFG = "cur_cfg",
        DPDK_INITIALIZED = "dpdk_initialized", STATISTICS = "statistics", OVS_VERSION = "ovs_version",
        DB_VERSION = "db_version", SYSTEM_TYPE = "system_type", SYSTEM_VERSION = "system_version",
        DPDK_VERSION = "dpdk_version", DATAPATH_TYPES = "datapath_types", IFACE_TYPES = "iface_types",
        MANAGER_OPTIONS = "manager_options", OTHER_CONFIG = "other_config", EXTERNAL_IDS = "external_ids",
    }
    bridge = "Bridge" {
        NAME = "name", PORTS = "ports", MIRRORS = "mirrors", NETFLOW = "netflow", SFLOW = "sflow",
        IPFIX = "ipfix", FLOOD_VLANS = "flood_vlans", AUTO_ATTACH = "auto_attach", CONTROLLER = "controller",
        FLOW_TABLES = "flow_tables", FAIL_MODE = "fail_mode", DATAPATH_ID = "datapath_id",
        DATAPATH_VERSION = "datapath_version", PROTOCOLS = "protocols", STP_ENABLE = "stp_enable",
        STATUS = "status", RSTP_ENABLE = "rstp_enable", RSTP_STATUS = "rstp_status",
        MCAST_SNOOPING_ENABLE = "mcast_snooping_enable", DATAPATH_TYPE = "datapath_type",
        OTHER_CONFIG = "other_config", EXTERNAL_IDS = "external_ids",
    }
    port = "Port" {
        NAME = "name", INTERFACES = "interfaces", VLAN_MODE = "vlan_mode", TAG = "tag", TRUNKS = "trunks",
        CVLANS = "cvlans", BOND_MODE = "bond_mode", BOND_UPDELAY = "bond_updelay",
        BOND_DOWNDELAY = "bond_downdelay", LACP = "lacp", BOND_FAKE_IFACE = "bond_fake_iface", QOS = "qos",
        STATUS = "status", RSTP_STATUS = "rstp_status", RSTP_STATISTICS = "rstp_statistics",
        STATISTICS = "statistics", MAC = "mac", FAKE_BRIDGE = "fake_bridge", PROTECTED = "protected",
        BOND_ACTIVE_SLAVE = "bond_active_slave", OTHER_CONFIG = "other_config", EXTERNAL_IDS = "external_ids",
    }
    interface = "Interface" {
        NAME = "name", IFINDEX = "ifindex", MAC_IN_USE = "mac_in_use", MAC = "mac", ERROR = "error",
        OFPORT = "ofport", OFPORT_REQUEST = "ofport_request", TYPE = "type", OPTIONS = "options", MTU = "mtu",
        MTU_REQUEST = "mtu_request", ADMIN_STATE = "admin_state", LINK_STATE = "link_state",
        LINK_RESETS = "link_resets", LINK_SPEED = "link_speed", DUPLEX = "duplex",
        LACP_CURRENT = "lacp_current", STATUS = "status", STATISTICS = "statistics",
        INGRESS_POLICING_RATE = "ingress_policing_rate",
        INGRESS_POLICING_KPKTS_RATE = "ingress_policing_kpkts_rate",
        INGRESS_POLICING_BURST = "ingress_policing_burst",
        INGRESS_POLICING_KPKTS_BURST = "ingress_policing_kpkts_burst", BFD = "bfd", BFD_STATUS = "bfd_status",
        CFM_MPID = "cfm_mpid", CFM_FLAP_COUNT = "cfm_flap_count", CFM_FAULT = "cfm_fault",
        CFM_FAULT_STATUS = "cfm_fault_status", CFM_REMOTE_OPSTATE = "cfm_remote_opstate",
        CFM_HEALTH = "cfm_health", CFM_REMOTE_MPIDS = "cfm_remote_mpids", LLDP = "lldp",
        OTHER_CONFIG = "other_config", EXTERNAL_IDS = "external_ids",
    }
    flow_table = "Flow_Table" {
        NAME = "name", FLOW_LIMIT = "flow_limit", OVERFLOW_POLICY = "overflow_policy", GROUPS = "groups",
        PREFIXES = "prefixes", EXTERNAL_IDS = "external_ids",
    }
    qos = "QoS" {
        TYPE = "type", QUEUES = "queues", OTHER_CONFIG = "other_config", EXTERNAL_IDS = "external_ids",
    }
    queue = "Queue" {
        DSCP = "dscp", OTHER_CONFIG = "other_config", EXTERNAL_IDS = "external_ids",
    }
    mirror = "Mirror" {
        NAME = "name", SELECT_ALL = "select_all", SELECT_DST_PORT = "select_dst_port",
        SELECT_SRC_PORT = "select_src_port", SELECT_VLAN = "select_vlan", OUTPUT_PORT = "output_port",
        OUTPUT_VLAN = "output_vlan", SNAPLEN = "snaplen", STATISTICS = "statistics",
        EXTERNAL_IDS = "external_ids",
    }
    controller = "Controller" {
        TYPE = "type", TARGET = "target", CONNECTION_MODE = "connection_mode", MAX_BACKOFF = "max_backoff",
        INACTIVITY_PROBE = "inactivity_probe", ENABLE_ASYNC_MESSAGES = "enable_async_messages",
        CONTROLLER_QUEUE_SIZE = "controller_queue_size", CONTROLLER_RATE_LIMIT = "controller_rate_limit",
        CONTROLLER_BURST_LIMIT = "controller_burst_limit", LOCAL_IP = "local_ip",
        LOCAL_NETMASK = "local_netmask", LOCAL_GATEWAY = "local_gateway", IS_CONNECTED = "is_connected",
        ROLE = "role", STATUS = "status", EXTERNAL_IDS = "external_ids", OTHER_CONFIG = "other_config",
    }
    manager = "Manager" {
        TARGET = "target", CONNECTION_MODE = "connection_mode", MAX_BACKOFF = "max_backoff",
        INACTIVITY_PROBE = "inactivity_probe", IS_CONNECTED = "is_connected", STATUS = "status",
        EXTERNAL_IDS = "external_ids", OTHER_CONFIG = "other_config",
    }
    netflow = "NetFlow" {
        TARGETS = "targets", ENGINE_ID = "engine_id", ENGINE_TYPE = "engine_type",
        ACTIVE_TIMEOUT = "active_timeout", ADD_ID_TO_INTERFACE = "add_id_to_interface",
        EXTERNAL_IDS = "external_ids",
    }
    datapath = "Datapath" {
        DATAPATH_VERSION = "datapath_version", CT_ZONES = "ct_zones", CAPABILITIES = "capabilities",
        EXTERNAL_IDS = "external_ids",
    }
    ct_zone = "CT_Zone" {
        TIMEOUT_POLICY = "timeout_policy", EXTERNAL_IDS = "external_ids",
    }
    ct_timeout_policy = "CT_Timeout_Policy" {
        TIMEOUTS = "timeouts", EXTERNAL_IDS = "external_ids",
    }
    ssl = "SSL" {
        PRIVATE_KEY = "private_key", CERTIFICATE = "certificate", CA_CERT = "ca_cert",
        BOOTSTRAP_CA_CERT = "bootstrap_ca_cert", EXTERNAL_IDS = "external_ids",
    }
    sflow = "sFlow" {
        AGENT = "agent", HEADER = "header", POLLING = "polling", SAMPLING = "sampling", TARGETS = "targets",
        EXTERNAL_IDS = "external_ids",
    }
    ipfix = "IPFIX" {
        TARGETS = "targets", CACHE_ACTIVE_TIMEOUT = "cache_active_timeout",
        CACHE_MAX_FLOWS = "cache_max_flows", SAMPLING = "sampling", OBS_DOMAIN_ID = "obs_domain_id",
        OBS_POINT_ID = "obs_point_id", OTHER_CONFIG = "other_config", EXTERNAL_IDS = "external_ids",
    }
    flow_sample_collector_set = "Flow_Sample_Collector_Set" {
        ID = "id", BRIDGE = "bridge", IPFIX = "ipfix", EXTERNAL_IDS = "external_ids",
    }
    auto_attach = "AutoAttach" {
        SYSTEM_NAME = "system_name", SYSTEM_DESCRIPTION = "system_description", MAPPINGS = "mappings",
    }
}
