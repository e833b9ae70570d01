"""What the role base leaves on a host, seen from outside."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host


def test_firewall_stands_in_its_own_table(host: Host) -> None:
    assert host.service("ispvm-nftables").is_running
    assert host.service("ispvm-nftables").is_enabled
    assert not host.service("nftables").is_enabled
    rules = host.check_output("nft list chain inet ispvm input")
    assert "policy drop" in rules
    assert "ip saddr 10.89.77.0/24 tcp dport 22 accept" in rules
    assert "ip saddr 10.89.77.0/24 tcp dport { 80, 443 } accept" in rules
    assert "ip6 saddr 2001:db8::/32 tcp dport { 80, 443 } accept" in rules
    assert 'ip saddr 10.89.77.0/24 tcp dport 8080 accept comment "an extra rule"' in rules


def test_firewall_reload_leaves_other_tables_and_adds_nothing(host: Host) -> None:
    host.check_output("nft add table inet somebody_else")
    before = host.check_output("nft --stateless list table inet ispvm")
    host.check_output("systemctl reload ispvm-nftables")
    assert host.check_output("nft --stateless list table inet ispvm") == before
    assert "table inet somebody_else" in host.check_output("nft list tables")
    host.check_output("nft delete table inet somebody_else")


def test_firewall_survives_debians_unit_which_flushes_everything(host: Host) -> None:
    host.check_output("systemctl restart nftables")
    assert "policy drop" in host.check_output("nft list chain inet ispvm input")
    host.check_output("systemctl stop nftables")
    assert not host.service("ispvm-nftables").is_running  # the unit tells the truth
    host.check_output("systemctl start ispvm-nftables")
    assert "policy drop" in host.check_output("nft list chain inet ispvm input")


def test_flushed_ruleset_is_seen_by_the_next_run(host: Host) -> None:
    assert host.check_output("/etc/ansible/facts.d/ispvm_firewall.fact") == '{"loaded": true}'
    host.check_output("nft delete table inet ispvm")
    assert host.check_output("/etc/ansible/facts.d/ispvm_firewall.fact") == '{"loaded": false}'
    host.check_output("systemctl reload ispvm-nftables")
    assert host.check_output("/etc/ansible/facts.d/ispvm_firewall.fact") == '{"loaded": true}'


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_clock_state_is_readable_by_everybody(host: Host, user: str) -> None:
    assert host.service("chrony").is_running
    assert host.service("chrony").is_enabled
    tracking = host.check_output(f"setpriv --reuid={user} --clear-groups chronyc -n tracking")
    assert "Leap status" in tracking
    # the configured server answers nobody, and that is exactly what must be seen
    assert "Not synchronised" in tracking


def test_clock_is_not_served_or_changed_by_others(host: Host) -> None:
    assert not host.socket("udp://0.0.0.0:123").is_listening
    assert host.socket("udp://127.0.0.1:323").is_listening
    assert not host.socket("udp://0.0.0.0:323").is_listening
    refused = host.run("setpriv --reuid=nobody --clear-groups chronyc -n makestep")
    assert "501 Not authorised" in refused.stdout
    assert "192.0.2.1" in host.check_output("chronyc -n sources")


def test_kernel_settings_are_in_force(host: Host) -> None:
    assert host.sysctl("vm.swappiness") == 10
    assert host.sysctl("vm.dirty_bytes") == 512 * 1024 * 1024
    assert host.check_output("cat /proc/sys/net/ipv4/ping_group_range").split() == ["0", "2147483647"]


def test_unprivileged_ping(host: Host) -> None:
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)"
    assert host.run(f'setpriv --reuid=nobody --regid=nogroup --clear-groups python3 -c "{code}"').rc == 0


def test_local_fact(host: Host) -> None:
    fact = host.file("/etc/ansible/facts.d/ispvm.fact")
    assert fact.mode == 0o644
    assert json.loads(fact.content_string) == {
        "version": "", "environment": "demo", "components": [], "admin_networks": ["10.89.77.0/24"],
    }  # fmt: skip


def test_database_set_is_left_alone_by_unattended_upgrades(host: Host) -> None:
    dump = host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert '"^postgresql"' in dump
    assert '"^pgbouncer"' in dump


def test_time_zone_is_untouched(host: Host) -> None:
    assert host.check_output("date +%Z") == "UTC"
