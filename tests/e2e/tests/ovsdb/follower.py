"""Follows a switch's database at REMOTE (the schema is in the environment): prints each change of a bridge or port as a
line of JSON. When a bridge's external_ids:ask changes, adds a port of that name to it, and prints what came of it."""
import json
import os
import sys

import ovs.db.idl
import ovs.poller


def say(**what):
    print(json.dumps(what), flush=True)


class Follower(ovs.db.idl.Idl):
    asked = None
    todo = None

    def notify(self, event, row, updates=None):
        table = row._table.name
        if table not in ("Bridge", "Port"):
            return
        told = {"event": event, "table": table, "name": row.name}
        if table == "Port":
            told["tag"] = row.tag
            if updates is not None:
                told["old"] = {c: getattr(updates, c) for c in ("tag",) if c in updates._data}
        elif row.external_ids.get("ask") not in (None, self.asked):
            self.asked = row.external_ids["ask"]
            self.todo = (row.uuid, self.asked)
        say(**told)


helper = ovs.db.idl.SchemaHelper(schema_json=json.loads(os.environ["SCHEMA"]))
helper.register_columns("Open_vSwitch", ["bridges", "next_cfg"])
helper.register_columns("Bridge", ["name", "ports", "external_ids"])
helper.register_columns("Port", ["name", "interfaces", "tag"])
helper.register_columns("Interface", ["name", "type"])
idl = Follower(sys.argv[1], helper)

while True:
    idl.run()
    if idl.todo:
        (uuid, name), idl.todo = idl.todo, None
        bridge = idl.tables["Bridge"].rows[uuid]
        switch = next(iter(idl.tables["Open_vSwitch"].rows.values()))
        txn = ovs.db.idl.Transaction(idl)
        txn.add_comment("a port that was asked for")
        interface = txn.insert(idl.tables["Interface"])
        interface.name, interface.type = name, "internal"
        port = txn.insert(idl.tables["Port"])
        port.name = name
        port.interfaces = [interface]
        bridge.addvalue("ports", port)
        switch.increment("next_cfg")
        status = txn.commit_block()
        count = txn.get_increment_new_value() if status == txn.SUCCESS else None
        say(event="committed", status=status, next_cfg=count, error=txn.get_error())
        continue
    poller = ovs.poller.Poller()
    idl.wait(poller)
    poller.block()
