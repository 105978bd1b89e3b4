//! Tables that are full: what of importance, groups and timeouts decides which flow gives way (OpenFlow 1.4.0 6.5 and 7.3.4.1, table
//! Flow_Table of ovs-vswitchd.conf.db(5)). A stock switch is asked the same.

#![allow(clippy::unwrap_used)]

mod support;

use support::dummy::Rig;

/// Does what each line says, `+` an addition, else a command line; what came of the additions, and which flows there are then.
fn carried_out(r: &Rig, lines: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for line in lines {
        // The one row that there is goes by no other name.
        let row = || r.run("ovs-vsctl --bare --columns=_uuid list Flow_Table").trim().to_owned();
        let line = if line.contains("@row") { &line.replace("@row", &row()) } else { *line };
        match line.strip_prefix("+ ") {
            None => drop(r.run(line)),
            Some(flow) => {
                let done = r.tool(&format!("ovs-ofctl -O OpenFlow14 add-flow br0 {flow},actions=drop"));
                let refused = done.is_err_and(|e| {
                    assert!(e.contains("OFPFMFC_TABLE_FULL"), "{e}");
                    true
                });
                all.push(if refused { "refused".to_owned() } else { "added".to_owned() });
            }
        }
    }
    let dump = r.run("ovs-ofctl -O OpenFlow14 --no-stats --no-names dump-flows br0");
    let mut flows: Vec<String> = dump.lines().map(|l| l.trim().to_owned()).collect();
    flows.retain(|l| l.contains("actions"));
    flows.sort();
    all.extend(flows);
    all
}

#[test]
fn the_least_important_gives_way_then_the_first_to_expire_and_of_groups_the_largest() {
    let limited = |limit: u32, more: &str| {
        format!(
            "ovs-vsctl -- --id=@t create Flow_Table flow_limit={limit} {more} -- set Bridge br0 flow_tables:0=@t"
        )
    };
    let three = limited(3, "");
    let evicting = limited(3, "overflow_policy=evict");
    let four = limited(4, "overflow_policy=evict");
    let fair = limited(4, "overflow_policy=evict groups=\"NXM_OF_IN_PORT[]\"");
    let cases: [(&str, Vec<&str>, &[&str]); 5] = [
        (
            "nobody gives way unless that is asked for",
            vec![
                &three,
                "+ in_port=1,hard_timeout=500",
                "+ in_port=2",
                "+ in_port=3",
                "+ in_port=4",
                "+ in_port=1",
            ],
            &["added", "added", "added", "refused", "added"],
        ),
        (
            "importance comes first, whenever flows expire",
            vec![
                &three,
                "ovs-ofctl -O OpenFlow14 mod-table br0 0 evict",
                "+ in_port=1,hard_timeout=500,importance=35000",
                "+ in_port=2,hard_timeout=100,importance=45000",
                "+ in_port=3,hard_timeout=700,importance=25000",
                "+ in_port=4,hard_timeout=300,importance=15000",
                "+ in_port=5,hard_timeout=300,importance=15000",
            ],
            &["added"; 5],
        ),
        (
            "of equal importance the first to expire, and never one that does not",
            vec![
                &evicting,
                "+ in_port=1,hard_timeout=500",
                "+ in_port=2,idle_timeout=400",
                "+ in_port=3",
                "+ in_port=4,idle_timeout=600",
                "+ in_port=5",
                "+ in_port=6",
                "+ in_port=7",
            ],
            &["added", "added", "added", "added", "added", "added", "refused"],
        ),
        (
            "the largest group loses one",
            vec![
                &fair,
                "+ in_port=1,tcp,tp_dst=1,idle_timeout=30",
                "+ in_port=1,tcp,tp_dst=2,idle_timeout=20",
                "+ in_port=1,tcp,tp_dst=3,idle_timeout=40",
                "+ in_port=2,tcp,tp_dst=1,idle_timeout=10",
                "+ in_port=2,tcp,tp_dst=2,idle_timeout=10",
            ],
            &["added"; 5],
        ),
        (
            "a lower limit holds at once for what may give way",
            vec![
                &four,
                "+ in_port=1,idle_timeout=30",
                "+ in_port=2,idle_timeout=20",
                "+ in_port=3",
                "+ in_port=4,idle_timeout=40",
                "ovs-vsctl set Flow_Table @row flow_limit=2",
            ],
            &["added"; 4],
        ),
    ];
    for (what, lines, additions) in cases {
        let outcomes = [Rig::start(), Rig::start_stock()].map(|r| carried_out(&r, &lines));
        assert_eq!(outcomes[0][..additions.len()], *additions, "{what}: {:?}", outcomes[0]);
        assert_eq!(outcomes[0], outcomes[1], "{what}");
    }
}
