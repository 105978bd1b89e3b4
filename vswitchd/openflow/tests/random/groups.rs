//! Random groups of a version.

use super::*;

/// Whether groups have OpenFlow 1.5's form.
fn new_groups(r: &Source) -> bool {
    matches!(r.v, Version::V10 | Version::V15)
}

pub(super) fn buckets(r: &mut Source, kind: GroupType) -> Vec<Bucket> {
    let new = new_groups(r);
    let mut next = 0;
    some(r, 4, |r| {
        next += r.random_range(1..5);
        let actions = actions(r);
        Bucket {
            id: if new { BucketId(next) } else { BucketId::ALL },
            weight: if new && kind != GroupType::Select { 0 } else { r.random() },
            watch_port: any_port(r),
            watch_group: GroupId(r.random()),
            actions,
        }
    })
}

pub(super) fn selection(r: &mut Source, kind: GroupType) -> Selection {
    if !new_groups(r) || kind != GroupType::Select || r.random() {
        return Selection::default();
    }
    let hash = r.random();
    let mut fields = Vec::new();
    if hash {
        fields = vec![(FieldId::NwSrc, r.random::<u32>().into()), (FieldId::TcpDst, 0xff)];
    }
    Selection { method: if hash { "hash".into() } else { "dp_hash".into() }, param: r.random(), fields }
}

pub(super) fn group_mod(r: &mut Source) -> GroupMod {
    use GroupModCommand::*;
    let command = if new_groups(r) {
        pick(r, &[Add, Modify, Delete, InsertBucket, RemoveBucket, AddOrModify])
    } else {
        pick(r, &[Add, Modify, Delete, AddOrModify])
    };
    let group_type = group_type(r);
    let may_select = matches!(command, Add | Modify | AddOrModify);
    GroupMod {
        command,
        group_type,
        group: GroupId(r.random()),
        bucket: match command {
            InsertBucket => pick(r, &[BucketId::FIRST, BucketId::LAST, BucketId(7)]),
            RemoveBucket => pick(r, &[BucketId::FIRST, BucketId::ALL, BucketId(7)]),
            _ => BucketId::ALL,
        },
        buckets: buckets(r, group_type),
        selection: if may_select { selection(r, group_type) } else { Selection::default() },
    }
}
