"""EVE-NG lab files become seeds: what is taken, what is refused, what is only warned of."""

from __future__ import annotations

import base64
import zipfile
from pathlib import Path

import msgspec
import pytest
from ispvm_contract import seed as seeds
from ispvm_lab import eve, eve_export
from ispvm_lab.cli import main
from lab_clients import SEEDS

LAB = SEEDS / "lab_eve.unl"
CHOICES = eve.Choices(
    tenant=seeds.Tenant("lab-eve", "EVE-NG lab"), site=seeds.Site("lab", "EVE-NG lab", latitude=54.597, longitude=-5.93)
)


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def lab(tmp_path: Path, nodes: str, networks: str = "", objects: str = "", name: str = "tiny") -> eve.Lab:
    file = tmp_path / "tiny.unl"
    file.write_text(
        f'<?xml version="1.0"?><lab name="{name}" version="1"><topology><nodes>{nodes}</nodes>'
        f"<networks>{networks}</networks></topology><objects>{objects}</objects></lab>"
    )
    return eve.read(file)


def router(
    number: int, name: str, *networks: int, image: str = "mikrotik-7.16.2", place: str = 'left="10" top="10"'
) -> str:
    ports = "".join(
        f'<interface id="{index}" name="e{index}" type="ethernet" network_id="{network}"/>'
        for index, network in enumerate(networks)
    )
    return f'<node id="{number}" name="{name}" type="qemu" template="mikrotik" image="{image}" {place}>{ports}</node>'


def config(number: int, text: str) -> str:
    return f'<config id="{number}">{coded(text)}</config>'


def addressed(number: int) -> str:
    loopback, management = f"10.255.0.{number}/32 interface=lo", f"192.0.2.{number}/24 interface=ether1"
    return f"/ip address\nadd address={loopback}\nadd address={management}\n"


def test_the_committed_seed_is_what_the_committed_lab_gives() -> None:
    made = eve.imported(eve.read(LAB), CHOICES)
    assert made.seed == seeds.load(SEEDS / "lab_eve.json")
    assert made.warnings == ("dependencies: guessed from roles and cables; check them",)


def test_the_guides_topology_is_in_it() -> None:
    made = seeds.load(SEEDS / "lab_eve.json")
    devices = {device.name: device for device in made.devices}
    assert sorted(devices) == ["ACCESS1", "ACCESS2", "AGG1", "AGG2", "CORE1", "CORE2", "EDGE1", "EDGE2", "RR1"]
    assert (devices["CORE1"].loopback, devices["EDGE1"].loopback) == ("10.255.0.1", "10.255.0.11")
    assert {peer.name for peer in devices["RR1"].bgp_peers} == {"core1", "core2", "edge1", "edge2", "agg1", "agg2"}
    assert [(peer.name, peer.remote_as) for peer in devices["EDGE2"].bgp_peers] == [
        ("rr1", 64512),
        ("upstream2", 64501),
    ]
    uplink = devices["EDGE1"].interfaces[3]
    assert uplink.tags == ["uplink:true", "provider:upstream1"]
    assert [device.pppoe_sessions for device in made.devices][:2] == [2, 2]
    assert [(target.name, target.address) for target in made.probe_targets] == [("TARGETS", "203.0.113.10")]
    assert "CORE1--CORE2" in {link.name for link in made.links}


def test_secrets_are_not_in_the_committed_lab() -> None:
    for node in eve.read(LAB).nodes:
        for word in ("password", "secret=", "private-key", "/user"):
            assert word not in node.config, node.name


def test_a_zip_with_one_lab(tmp_path: Path) -> None:
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(LAB, "labs/lab_eve.unl")
    assert eve.read(archive) == eve.read(LAB)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("second.unl", "<lab/>")
    with pytest.raises(ValueError, match=r"export.zip: holds 2 .unl files"):
        eve.read(archive)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('<!DOCTYPE lab [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><lab name="&b;"/>', "declares a document type"),
        ('<!DOCTYPE lab SYSTEM "file:///etc/passwd"><lab/>', "declares a document type"),
        ("<lab>", "no EVE-NG lab"),
        ("nothing", "no EVE-NG lab"),
        ("<network/>", "the root element is <network>"),
        (
            '<lab><objects><configs><config id="7">???</config></configs></objects></lab>',
            r"config\[@id=7\]: not base64",
        ),
    ],
)
def test_what_is_no_lab_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "bad.unl").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        eve.read(tmp_path / "bad.unl")


def test_a_cable_is_a_network_with_two_routers(tmp_path: Path) -> None:
    clouds = '<network id="1" type="pnet0"/><network id="2" type="bridge"/><network id="3" type="bridge"/>'
    lan = router(1, "CORE_1", 1, 2, 3) + router(2, "CORE_2", 1, 2, 3) + router(3, "AGG_1", 1, 3)
    configs = "".join(config(number, addressed(number)) for number in (1, 2, 3))
    made = eve.imported(lab(tmp_path, lan, clouds, f"<configs>{configs}</configs>"))
    assert [(link.name, link.a.interface, link.b.interface) for link in made.seed.links] == [
        ("CORE-1--CORE-2", "ether2", "ether2")
    ]
    core = made.seed.devices[1]
    assert [(port.key, port.comment) for port in core.interfaces] == [
        ("ether1", "management"),
        ("ether2", "to CORE-2"),
        ("ether3", "LAN with AGG-1, CORE-2"),
    ]
    assert made.seed.dependencies == []  # the LAN says nothing about who needs whom
    assert any("coordinates" in warning for warning in made.warnings)


def test_two_cables_between_the_same_routers(tmp_path: Path) -> None:
    networks = '<network id="1" type="pnet0"/><network id="2" type="bridge"/><network id="3" type="ovs"/>'
    nodes = router(1, "CORE1", 1, 2, 3) + router(2, "CORE2", 1, 2, 3)
    configs = config(1, addressed(1)) + config(2, addressed(2))
    made = eve.imported(lab(tmp_path, nodes, networks, f"<configs>{configs}</configs>"))
    assert [link.name for link in made.seed.links] == ["CORE1--CORE2", "CORE1--CORE2-2"]


def test_addresses_come_from_people_before_files_and_texts_last(tmp_path: Path) -> None:
    html = '<div style="left: 30px; top: 40px;"><p>lo <b>198.18.0.1/32</b></p></div>'
    text = f'<textobjects><textobject id="1" type="text"><data>{coded(html)}</data></textobject></textobjects>'
    near = lab(tmp_path, router(1, "CORE1"), objects=text)
    made = eve.imported(near, eve.Choices(addresses={"CORE1": "192.0.2.1"}))
    assert (made.seed.devices[0].address, made.seed.devices[0].loopback) == ("192.0.2.1", "198.18.0.1")
    assert "CORE1: loopback 198.18.0.1 read from the text beside it" in made.warnings
    with pytest.raises(ValueError, match=r"CORE1: no management address.*--address CORE1=ADDRESS"):
        eve.imported(near)
    far = lab(tmp_path, router(1, "CORE1", place='left="900" top="900"'), objects=text)
    with pytest.raises(ValueError, match=r"CORE1: no loopback.*--loopback CORE1=ADDRESS"):
        eve.imported(far, eve.Choices(addresses={"CORE1": "192.0.2.1"}))


@pytest.mark.parametrize(
    ("nodes", "complaint"),
    [
        ('<node id="1" name="PC" template="linux" image="linux-debian-13"/>', "tiny: no MikroTik node"),
        (
            router(1, "CORE1", image="mikrotik-latest"),
            "CORE1: image 'mikrotik-latest' does not end in a RouterOS version",
        ),
        (router(1, "CORE_1") + router(2, "CORE-1"), "devices: name 'CORE-1' stands twice"),
    ],
)
def test_what_cannot_be_a_seed_is_refused(tmp_path: Path, nodes: str, complaint: str) -> None:
    choices = eve.Choices(
        addresses={"CORE1": "192.0.2.1", "CORE-1": "192.0.2.1"}, loopbacks={"CORE1": "192.0.2.1", "CORE-1": "192.0.2.1"}
    )
    with pytest.raises(ValueError, match=complaint):
        eve.imported(lab(tmp_path, nodes), choices)


def test_secrets_in_a_configuration_are_left_and_told(tmp_path: Path) -> None:
    secret = addressed(1) + '/ppp secret\nadd name=kim password="open sesame"\n/user\nadd name=root password=hunter2\n'
    made = eve.imported(
        lab(
            tmp_path, router(1, "SPARE", 1), '<network id="1" type="pnet0"/>', f"<configs>{config(1, secret)}</configs>"
        )
    )
    assert "SPARE: its configuration holds /ppp secret; not read" in made.warnings
    assert "SPARE: its configuration holds /user; not read" in made.warnings
    assert any(warning.startswith("SPARE: role unknown, customer-edge taken") for warning in made.warnings)
    text = msgspec.json.encode(made.seed).decode()
    assert "sesame" not in text
    assert "hunter2" not in text


def test_configurations() -> None:
    text = (
        "/ip/address/add address=10.0.0.1/30 interface=ether1\n/routing bgp connection\n"
        'add name="to \\"RR\\"" remote.address=10.255.0.21/32 \\\n    .as=64512 local.role=ibgp\n'
        "# a comment\nset [ find default-name=ether2 ] comment=uplink\n/system identity set name=CORE1\nremove 0\n"
    )
    assert list(eve.configuration(text)) == [
        ("/ip address", "add", {"address": "10.0.0.1/30", "interface": "ether1"}),
        (
            "/routing bgp connection",
            "add",
            {"name": 'to "RR"', "remote.address": "10.255.0.21/32", "remote.as": "64512", "local.role": "ibgp"},
        ),
        ("/routing bgp connection", "set", {"default-name": "ether2", "comment": "uplink"}),
        ("/system identity", "set", {"name": "CORE1"}),
    ]


def test_bad_lines_in_a_configuration_are_told(tmp_path: Path) -> None:
    networks = '<network id="1" type="pnet0"/>'
    for text, complaint in (
        ("/ip address\nadd address=10.0.0.999/8 interface=ether1", "CORE1: /ip address: "),
        (
            "/routing bgp peer\nadd name=x remote-address=10.0.0.1 remote-as=many",
            "CORE1: BGP peer x: remote-as is 'many'",
        ),
    ):
        tiny = lab(tmp_path, router(1, "CORE1", 1), networks, f"<configs>{config(1, text)}</configs>")
        with pytest.raises(ValueError, match=complaint):
            eve.imported(tiny)


def test_the_command_says_whether_it_changed_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "lab.json"
    words = ["import-eve", str(LAB), "--output", str(output), "--site", "lab:EVE-NG lab:54.597:-5.93"]
    for said in ("changed", "unchanged"):
        assert main([*words, "--tenant", "lab-eve:EVE-NG lab"]) == 0
        assert capsys.readouterr().out == f"{said}\n"
    assert output.read_bytes() == (SEEDS / "lab_eve.json").read_bytes()
    for bad, complaint in (
        (["--site", "lab:x"], "--site"),
        (["--address", "CORE1=x"], "--address"),
        (["--tenant", "x"], "--tenant"),
    ):
        assert main([*words, *bad]) == 1
        assert f"ispvm-lab: {complaint}: " in capsys.readouterr().err


def graph(seed: seeds.Seed) -> dict[str, object]:
    """What must survive the way to EVE-NG and back, whatever interfaces are called there."""
    return {
        "routers": {(d.name, d.role, d.routeros, d.address, d.loopback) for d in seed.devices},
        "links": sorted(sorted((link.a.device, link.b.device)) for link in seed.links),
        "ospf": {(d.name, n.router_id, n.address) for d in seed.devices for n in d.ospf_neighbors},
        "bgp": {(d.name, p.name, p.remote_address, p.remote_as) for d in seed.devices for p in d.bgp_peers},
        "ports": {(d.name, p.comment) for d in seed.devices for p in d.interfaces if p.comment},
    }


@pytest.mark.parametrize("name", sorted(path.name for path in SEEDS.glob("*.json")))
def test_to_eve_and_back(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lab.unl"
    for said in ("changed", "unchanged"):
        assert main(["export-eve", str(SEEDS / name), "--output", str(file)]) == 0
        assert capsys.readouterr().out == f"{said}\n"
    before = seeds.load(SEEDS / name)
    after = eve.imported(eve.read(file), CHOICES).seed
    assert graph(after) == graph(before)


def test_awkward_names_survive_the_way_too(tmp_path: Path) -> None:
    seed = seeds.load(SEEDS / "lab_eve.json")
    awkward = 'costs 5 $, "quoted" \\ and <tagged> & = more?'
    seed.devices[0].interfaces[1].comment = awkward
    (tmp_path / "lab.unl").write_text(eve_export.exported(seed))
    assert eve.imported(eve.read(tmp_path / "lab.unl"), CHOICES).seed.devices[0].interfaces[1].comment == awkward


def test_the_guides_lab_keeps_its_interfaces_on_the_way(tmp_path: Path) -> None:
    before = seeds.load(SEEDS / "lab_eve.json")
    (tmp_path / "lab.unl").write_text(eve_export.exported(before))
    after = eve.imported(eve.read(tmp_path / "lab.unl"), CHOICES).seed
    assert after.links == before.links
    assert after.dependencies == before.dependencies
    assert [d.ospf_neighbors for d in after.devices] == [d.ospf_neighbors for d in before.devices]
    assert [[p.key for p in d.interfaces] for d in after.devices] == [
        [p.key for p in d.interfaces] for d in before.devices
    ]
