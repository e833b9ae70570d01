"""What a port is plugged into: link speed and light of Ethernet ports, LTE signal, clients of radios, neighbours."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import fmean
from typing import ClassVar

from ispvm_contract.ingest import Value

from ispvm_agent.collectors.base import (
    Entity,
    Findings,
    Moment,
    Replies,
    Stateless,
    Table,
    Tier,
    Version,
    filled,
    since,
)
from ispvm_agent.collectors.interfaces import keyed, keys_by_name
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import Aimed, Command, Question
from ispvm_agent.routeros.values import Row

_AT_ONCE = 100  # ports asked about in one command
_ITEM = "*0123456789ABCDEFabcdef"


def _ids(rows: list[Row]) -> tuple[str, ...]:
    return tuple(i for row in rows if (i := row.get(".id", "")).startswith("*") and not i.strip(_ITEM) and len(i) > 1)


class Ethernet(Stateless):
    """Negotiated speed of each Ethernet port, and what its optical module measures. Absent light is absent, never 0."""

    name = "ethernet"
    tier: Tier = "slow"
    _OPTICS: ClassVar = {
        "optics.rx_power_dbm": "sfp-rx-power",
        "optics.tx_power_dbm": "sfp-tx-power",
        "optics.temp_c": "sfp-temperature",
        "optics.voltage_v": "sfp-supply-voltage",
        "optics.bias_ma": "sfp-tx-bias-current",
    }
    _FLAGS: ClassVar = {
        "interface.full_duplex": "full-duplex",
        "optics.rx_loss": "sfp-rx-loss",
        "optics.tx_fault": "sfp-tx-fault",
    }
    later: tuple[Command, ...] = (Command.ETHERNET_MONITOR,)
    publishes: tuple[str, ...] = ("interface.link_bps", *_FLAGS, *_OPTICS)

    def __init__(self) -> None:
        """The ports are not known yet."""
        self._ids: tuple[str, ...] = ()
        self.hurry = False

    def ask(self, version: Version) -> tuple[Question, ...]:
        """Which ports there are, and once that is known their monitor."""
        parts = [self._ids[at : at + _AT_ONCE] for at in range(0, len(self._ids), _AT_ONCE)]
        monitors = (Aimed(Command.ETHERNET_MONITOR, part) for part in parts)
        return (Command.INTERFACES, Command.ETHERNET_PORTS, *monitors)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """A table of the ports that tell anything."""
        known, self._ids = self._ids, _ids(replies[Command.ETHERNET_PORTS].rows)
        self.hurry = known != self._ids
        keys = keys_by_name(replies[Command.INTERFACES])
        monitored = [row for question, reply in replies.items() if isinstance(question, Aimed) for row in reply.rows]
        rows = {keys[name]: row for row in monitored if (name := values.text(row, "name")) in keys}
        columns: dict[str, list[Value]] = {
            "interface.link_bps": [values.rate(row.get("rate")) for row in rows.values()]
        }
        for metric, field in self._FLAGS.items():
            columns[metric] = [values.boolean(row, field) for row in rows.values()]
        for metric, field in self._OPTICS.items():
            columns[metric] = [values.leading(row.get(field)) for row in rows.values()]
        columns = filled(columns)
        return Findings(tables=[Table("interface", list(rows), columns)] if columns else [])


class Lte(Stateless):
    """Signal of each LTE modem; no number of a SIM card or a device is asked for."""

    name = "lte"
    tier: Tier = "medium"
    _SIGNAL: ClassVar = {
        "lte.rssi_dbm": "rssi",
        "lte.rsrp_dbm": "rsrp",
        "lte.rsrq_db": "rsrq",
        "lte.sinr_db": "sinr",
    }
    later: tuple[Command, ...] = (Command.LTE_PORTS, Command.LTE_INFO_V6, Command.LTE_MONITOR_V7)
    publishes: tuple[str, ...] = ("lte.registered", *_SIGNAL)

    def __init__(self) -> None:
        """The modems are not known yet."""
        self._there = False
        self._modems: dict[str, str] = {}  # id -> name
        self.hurry = False

    def ask(self, version: Version) -> tuple[Question, ...]:
        """Where there is an interface of the type: which modems, and once that is known the state of each."""
        command = Command.LTE_MONITOR_V7 if version >= (7, 0) else Command.LTE_INFO_V6
        if not self._there:
            return (Command.INTERFACES,)
        return (Command.INTERFACES, Command.LTE_PORTS, *(Aimed(command, (item,)) for item in self._modems))

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """A table of modems by interface name."""
        rows = {
            self._modems[question.items[0]]: reply.rows[0]
            for question, reply in replies.items()
            if isinstance(question, Aimed) and question.items[0] in self._modems and reply.rows
        }
        before, known = self._there, self._modems
        self._there = "lte" in replies[Command.INTERFACES].column("type")
        ports = replies[Command.LTE_PORTS].rows if Command.LTE_PORTS in replies else []
        self._modems = {i: name for row in ports for i in _ids([row]) if (name := values.text(row, "name"))}
        self.hurry = (self._there and not before) or known != self._modems
        columns: dict[str, list[Value]] = {"lte.registered": [_registered(row) for row in rows.values()]}
        for metric, field in self._SIGNAL.items():
            columns[metric] = [values.leading(row.get(field)) for row in rows.values()]
        if not (columns := filled(columns)):
            return Findings()
        about = {"operator": "current-operator", "technology": "access-technology"}
        entities = [
            Entity("lte", key, key, {ours: values.text(row, theirs) or None for ours, theirs in about.items()})
            for key, row in rows.items()
        ]
        return Findings(tables=[Table("lte", list(rows), columns)], entities=entities)


def _registered(row: Row) -> bool | None:
    word = row.get("registration-status") or row.get("status")
    return None if word is None else word in ("registered", "roaming", "connected", "running")


class Radio(Stateless):
    """How many clients each radio has and how well it hears them. Who they are is not asked."""

    tier: Tier = "medium"
    publishes: tuple[str, ...] = ("radio.clients", "radio.signal_dbm", "radio.signal_worst_dbm")

    def __init__(self, name: str, types: tuple[str, ...], menus: dict[Version, Command | None]) -> None:
        """A wireless stack: the interface types of its radios, and from which version on it has which menu."""
        self.name = name
        self._types = types
        self._menus = menus
        self.later: tuple[Command, ...] = tuple(filter(None, menus.values()))
        self._there = False  # nothing is asked of a stack that has no radio here
        self.hurry = False

    def ask(self, version: Version) -> tuple[Question, ...]:
        """The radios are interfaces, which are asked for anyhow; where there are any, the menu of clients too."""
        menu = since(version, self._menus)
        return (Command.INTERFACES, *(menu if self._there else ())) if menu else ()

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """A table of radios; one without clients has 0 of them and no signal."""
        interfaces = replies[Command.INTERFACES]
        types = interfaces.column("type")
        before, self._there = self._there, not set(self._types).isdisjoint(types)
        self.hurry = self._there and not before
        reply = next((reply for question, reply in replies.items() if question is not Command.INTERFACES), None)
        if reply is None or not self._there:
            return Findings()
        radios = [key for key, place in keyed(interfaces).items() if types[place] in self._types]
        names, heard = keys_by_name(interfaces), defaultdict[str, list[float | None]](list)
        for row in reply.rows:
            if (key := names.get(values.text(row, "interface"))) is not None:
                told = row.get("signal-strength") or row.get("signal") or row.get("rx-signal")
                heard[key].append(values.leading(told))
        keys = list(dict.fromkeys([*radios, *heard]))
        if not keys:
            return Findings()
        signals = [[signal for signal in heard.get(key, ()) if signal is not None] for key in keys]
        columns: dict[str, list[Value]] = {
            "radio.clients": [len(heard.get(key, ())) for key in keys],
            "radio.signal_dbm": [round(fmean(signal), 1) if signal else None for signal in signals],
            "radio.signal_worst_dbm": [min(signal, default=None) for signal in signals],
        }
        called = {key: name for name, key in names.items()}
        entities = [Entity("radio", key, called.get(key, key), {}) for key in keys]
        return Findings(tables=[Table("radio", keys, filled(columns))], entities=entities)


class Neighbors(Stateless):
    """Which device is at the other end of a cable (MNDP, LLDP, CDP). Its MAC and IP addresses are not asked for.

    Only of interfaces with exactly one neighbour, which is a link; a bridge full of customers' devices is no link, and
    neither is the interface of a subscriber's session.
    """

    name = "neighbors"
    tier: Tier = "slow"
    publishes: tuple[str, ...] = ("neighbor.up", "device.neighbors")

    def __init__(self) -> None:
        """Nobody has been seen yet."""
        self._seen: dict[str, Entity] = {}

    def ask(self, version: Version) -> tuple[Question, ...]:
        """One menu on every version; the interfaces tell which are subscribers'."""
        return (Command.INTERFACES, Command.NEIGHBORS)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """A table of links by local interface; a neighbour that was seen before and is not now is down."""
        names = keys_by_name(replies[Command.INTERFACES])
        rows = replies[Command.NEIGHBORS].rows
        found = Findings(device={"device.neighbors": len(rows)})
        places = [values.text(row, "interface").split(",")[0] for row in rows]
        alone = Counter(places)
        here: set[str] = set()
        for place, row in zip(places, rows, strict=True):
            if place not in names or alone[place] > 1:
                continue
            about = {name: values.text(row, name) or None for name in ("identity", "platform", "board", "version")}
            key = names[place]
            remote = values.text(row, "interface-name") or None
            label = about["identity"] or about["platform"] or "?"
            here.add(key)
            self._seen[key] = Entity("neighbor", key, label, {**about, "interface": place, "remote_interface": remote})
        crowded = {key for name, key in names.items() if alone[name] > 1}  # several neighbours: no link any more
        self._seen = {k: entity for k, entity in self._seen.items() if k in names.values() and k not in crowded}
        if self._seen:
            up: list[Value] = [key in here for key in self._seen]
            found.tables.append(Table("neighbor", list(self._seen), {"neighbor.up": up}))
            found.entities += self._seen.values()
        return found


def radios() -> list[Radio]:
    """The three wireless stacks of RouterOS; a router has one, or two at the same time."""
    wifi: dict[Version, Command | None] = {(7, 1): Command.WIFIWAVE2_CLIENTS, (7, 13): Command.WIFI_CLIENTS}
    return [
        Radio("wireless", ("wlan",), {(0, 0): Command.WIRELESS_CLIENTS}),
        Radio("wifi", ("wifi", "wifiwave2"), wifi),
        Radio("capsman", ("cap",), {(0, 0): Command.CAPSMAN_CLIENTS}),
    ]
