"""What browsers and agents meet: TLS, headers, limits, logs, and a certificate that renews itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
TLS = "/etc/ispvm/tls"
# stands in for the server: answers every request on the unix socket with what it received
SERVER = """
import http.server, json, os, socketserver
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        size = len(self.rfile.read(int(self.headers.get('Content-Length') or 0)))
        body = json.dumps({'path': self.path, 'size': size, 'headers': dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header('Content-Security-Policy', "default-src 'self'")
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def address_string(self):
        return 'proxy'
os.makedirs('/run/ispvm', exist_ok=True)
os.chmod('/run/ispvm', 0o755)
server = socketserver.ThreadingUnixStreamServer('/run/ispvm/server.sock', Echo)
os.chmod('/run/ispvm/server.sock', 0o660)
import grp
os.chown('/run/ispvm/server.sock', 0, grp.getgrnam('ispvm-proxy').gr_gid)
server.serve_forever()
"""
# one request over TLS that trusts the appliance's authority only; prints status, headers and body as JSON
CLIENT = """
import http.client, json, ssl, sys
method, path, size, headers = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
context = ssl.create_default_context(cafile='/etc/ispvm/tls/ca.crt')
connection = http.client.HTTPSConnection('10.89.77.36', 443, context=context, timeout=10)
connection.request(method, path, b'x' * size if size else None, headers)
answer = connection.getresponse()
print(json.dumps([answer.status, dict(answer.getheaders()), answer.read().decode()]))
"""
Answer = tuple[int, dict[str, str], str]


def request(host: Host, path: str, *, method: str = "GET", size: int = 0, headers: str = "{}") -> Answer:
    """Ask the proxy; returns status, headers and body."""
    said = host.check_output("python3 -c %s %s %s %s %s", CLIENT, method, path, str(size), headers)
    status, head, body = json.loads(said)
    return status, head, body


@pytest.fixture(scope="module", autouse=True)
def server(host: Host) -> Iterator[None]:
    """A server on the socket for the time of the tests."""
    host.check_output("systemd-run --quiet --collect --unit=echo python3 -c %s", SERVER)
    host.check_output("timeout 10 sh -c 'until [ -S /run/ispvm/server.sock ]; do :; done'")
    yield
    host.check_output("systemctl stop echo; rm -rf /run/ispvm")


def certificate(host: Host, what: str) -> str:
    """A field of the server's certificate."""
    return str(host.check_output(f"openssl x509 -in {TLS}/server.crt -noout {what}"))


def test_the_server_is_reached_over_tls_that_agents_trust(host: Host) -> None:
    status, head, body = request(host, "/page?x=1")
    assert status == 200
    assert json.loads(body)["path"] == "/page?x=1"
    assert head["Strict-Transport-Security"] == "max-age=31536000"
    # what the server says about content is passed on, once
    assert head["Content-Security-Policy"] == "default-src 'self'"
    assert head["Server"] == "nginx"


def test_metrics_do_not_leave_the_host(host: Host) -> None:
    for path in ("/metrics", "/metrics?x=1", "//metrics", "/%6detrics"):
        status, _, body = request(host, path)
        assert (status, "path" in body) == (404, False), path


def test_a_client_cannot_claim_another_address(host: Host) -> None:
    _, _, body = request(host, "/", headers='{"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"}')
    seen = json.loads(body)["headers"]
    assert seen["X-Forwarded-For"] == "10.89.77.36"
    assert seen["X-Forwarded-Proto"] == "https"


def test_the_largest_batch_passes_and_more_is_refused(host: Host) -> None:
    status, _, body = request(host, "/ingest/v1/batch", method="POST", size=8 * 1024 * 1024)
    assert status == 200
    assert json.loads(body)["size"] == 8 * 1024 * 1024
    assert host.run("python3 -c %s POST / %s {}", CLIENT, str(9 * 1024 * 1024)).stdout[:5] in ("[413,", "")
    assert "client intended to send too large body" in host.file("/var/log/nginx/ispvm-error.log").content_string


def test_old_protocols_are_refused(host: Host) -> None:
    for option, accepted in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        command = f"openssl s_client -connect 10.89.77.36:443 -CAfile {TLS}/ca.crt {option} -cipher ALL:@SECLEVEL=0"
        done = host.run(f"{command} -verify_return_error < /dev/null")
        assert (done.rc == 0) == accepted, option


def test_http2_is_spoken(host: Host) -> None:
    # The handshake's report may hold whatever bytes the server's first frames are made of: only its text is read.
    said = host.check_output(
        "openssl s_client -connect 10.89.77.36:443 -alpn h2,http/1.1 < /dev/null 2>&1 | grep --text '^ALPN'"
    )
    assert said == "ALPN protocol: h2"


def test_plain_http_is_redirected(host: Host) -> None:
    code = (
        "import http.client; c = http.client.HTTPConnection('10.89.77.36'); c.request('GET', '/a?b=c');"
        "r = c.getresponse(); print(r.status, r.headers['Location'])"
    )
    assert host.check_output("python3 -c %s", code) == "308 https://10.89.77.36/a?b=c"


def test_no_token_and_no_query_string_is_in_a_log(host: Host) -> None:
    request(host, "/login/one-time/SECRET-TOKEN?from=SECRET-MAIL")
    request(host, "/api?token=SECRET-QUERY")
    host.check_output("systemctl stop echo")  # now nginx has an error to report about the link
    try:
        assert request(host, "/login/one-time/SECRET-TOKEN-2")[0] == 502
    finally:
        host.check_output("systemctl reset-failed echo 2> /dev/null; rm -rf /run/ispvm")
        host.check_output("systemd-run --quiet --collect --unit=echo python3 -c %s", SERVER)
        host.check_output("timeout 10 sh -c 'until [ -S /run/ispvm/server.sock ]; do :; done'")
    logs = host.check_output("cat /var/log/nginx/*.log; journalctl --no-pager --unit=nginx")
    assert '"GET /login/one-time/... HTTP/1.1" 200' in logs
    assert '"GET /login/one-time/... HTTP/1.1" 502' in logs
    assert '"GET /api HTTP/1.1" 200' in logs
    assert "SECRET" not in logs


def test_the_certificate_is_for_the_names_and_a_year(host: Host) -> None:
    names = certificate(host, "-ext subjectAltName")
    assert "DNS:monitor.molecule.test, IP Address:10.89.77.36, IP Address:2001:DB8:0:0:0:0:0:36" in names
    certificate(host, "-checkend 31000000")
    assert "prime256v1" in certificate(host, "-text")
    assert host.run(f"openssl verify -CAfile {TLS}/ca.crt {TLS}/server.crt").rc == 0


def test_keys_are_roots_alone(host: Host) -> None:
    for name, mode in (("ca.key", 0o400), ("server.key", 0o600)):
        file = host.file(f"{TLS}/{name}")
        assert (file.user, file.group, file.mode) == ("root", "root", mode)


def test_the_certificate_is_renewed_when_it_is_due_and_nginx_serves_the_new_one(host: Host) -> None:
    authority = host.file(f"{TLS}/ca.crt").sha256sum
    # a certificate that ends in 29 days, from the same authority
    host.check_output(
        f"cd {TLS} && printf 'subjectAltName=DNS:monitor.molecule.test\\nextendedKeyUsage=serverAuth\\n' > /tmp/ext && "
        "openssl req -new -key server.key -subj /CN=old | openssl x509 -req -CA ca.crt -CAkey ca.key -days 29"
        " -extfile /tmp/ext -out server.crt && systemctl reload nginx"
    )
    old = certificate(host, "-serial")
    host.check_output("systemctl start ispvm-tls-renew.service")
    new = certificate(host, "-serial")
    assert new != old
    certificate(host, "-checkend 31000000")
    assert host.file(f"{TLS}/ca.crt").sha256sum == authority
    served = "openssl s_client -connect 10.89.77.36:443 < /dev/null 2> /dev/null | openssl x509 -noout -serial"
    host.check_output(f"timeout 10 sh -c 'until [ \"$({served})\" = {new} ]; do :; done'")
    assert host.check_output("ispvm-tls ensure") == "unchanged"


def test_another_name_brings_another_certificate(host: Host) -> None:
    before = certificate(host, "-serial")
    host.check_output(f"cp {TLS}/names /tmp/names && echo second.molecule.test >> {TLS}/names")
    assert host.check_output("ispvm-tls ensure") == "changed"
    assert "DNS:second.molecule.test" in certificate(host, "-ext subjectAltName")
    host.check_output(f"cat /tmp/names > {TLS}/names")
    assert host.check_output("ispvm-tls ensure") == "changed"
    assert certificate(host, "-serial") != before


def test_an_authority_is_never_overwritten(host: Host) -> None:
    before = host.check_output(f"sha256sum {TLS}/ca.key {TLS}/server.crt")
    host.check_output(f"mv {TLS}/ca.crt /tmp/ca.crt")
    done = host.run("ispvm-tls ensure")
    host.check_output(f"mv /tmp/ca.crt {TLS}/ca.crt")
    assert done.rc == 1
    assert "has only one of ca.key and ca.crt" in done.stderr
    assert host.check_output(f"sha256sum {TLS}/ca.key {TLS}/server.crt") == before


def test_the_renewal_timer_runs(host: Host) -> None:
    timer = host.service("ispvm-tls-renew.timer")
    assert timer.is_enabled
    assert timer.is_running
    assert timer.systemd_properties["Persistent"] == "yes"


def test_debians_example_site_is_gone_and_nginx_has_no_complaint(host: Host) -> None:
    assert not host.file("/etc/nginx/sites-enabled/default").exists
    assert host.run("nginx -t -q").rc == 0
    assert host.run("grep -F '[alert]' /var/log/nginx/*.log").stdout == ""


@pytest.mark.parametrize(("unit", "most"), [("nginx", 3.0), ("ispvm-tls-renew", 1.5)])
def test_a_unit_is_hardened(host: Host, unit: str, most: float) -> None:
    said = host.check_output(f"systemd-analyze security --no-pager {unit}.service")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None
    assert float(found[1]) <= most, found[0]


def test_a_killed_nginx_comes_back(host: Host) -> None:
    before = host.check_output("systemctl show --property=MainPID --value nginx")
    host.check_output(f"kill -KILL {before}")
    comes_back = (
        f'[ "$(systemctl show --property=MainPID --value nginx)" != {before} ] && systemctl is-active --quiet nginx'
    )
    host.check_output(f"timeout 20 sh -c 'until {comes_back}; do sleep 0.1; done'")
    assert request(host, "/")[0] == 200


def converge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook again, with other variables."""
    inventories = [f"--inventory={ROOT}/molecule/{name}/inventory" for name in ("shared", "proxy")]
    settings = {"ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg", "MOLECULE_PROJECT_DIRECTORY": str(ROOT)}
    command = ["ansible-playbook", *inventories, *arguments, str(ROOT / "molecule/proxy/converge.yml")]
    return subprocess.run(
        command, env={**os.environ, **settings}, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_given_certificate_is_served_and_the_authority_stays_for_the_way_back(host: Host) -> None:
    host.check_output(
        "openssl req -new -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9"
        " -subj /CN=given.molecule.test -keyout /etc/ssl/private/given.key -out /etc/ssl/certs/given.crt"
    )
    authority = host.file(f"{TLS}/ca.crt").sha256sum
    done = converge(
        "--extra-vars",
        "proxy_tls_mode=provided proxy_tls_certificate=/etc/ssl/certs/given.crt"
        " proxy_tls_key=/etc/ssl/private/given.key",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    served = "openssl s_client -connect 10.89.77.36:443 < /dev/null 2> /dev/null | openssl x509 -noout -subject"
    host.check_output(f"timeout 10 sh -c 'until {served} | grep -q given.molecule.test; do :; done'")
    # the timer does not renew what nobody uses
    host.check_output("systemctl start ispvm-tls-renew.service")
    assert host.service("ispvm-tls-renew").systemd_properties["ConditionResult"] == "no"
    assert converge().returncode == 0
    host.check_output(f"timeout 10 sh -c 'until {served} | grep -q ISPVisualMonitor; do :; done'")
    assert host.file(f"{TLS}/ca.crt").sha256sum == authority


def test_a_given_certificate_without_paths_is_refused() -> None:
    done = converge("--extra-vars", "proxy_tls_mode=provided")
    assert done.returncode != 0
    assert "give both as absolute paths on the host" in " ".join(done.stdout.split())
