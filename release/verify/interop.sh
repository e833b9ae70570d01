#!/bin/sh
# What tools of others say about a release: the interoperability table of docs/verify.md.
#   interop.sh TREE       one line of the table for each tool; exit 1 when one of them refuses
# On Debian 13 with minisign, cosign and gpgv installed. No tool sees a network.
# shellcheck disable=SC2016 # what stands in single quotes is run, and printed as it is
set -u
cd "$1" || exit 2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0
try() { # tool, text that a good answer holds, command
    if said=$(unshare -n sh -c "$3" 2>&1) && printf '%s\n' "$said" | grep -Fq "$2"; then
        answer=$(printf '%s\n' "$said" | grep -F -m 1 "$2" | cut -c 1-60)
    else
        answer=REFUSED failed=1
        printf '%s\n' "$said" >&2
    fi
    printf '| %s | `%s` | %s |\n' "$1" "$3" "$answer"
}
export tmp
base64 -d signatures/SHA256SUMS.sig >"$tmp/sig"
# a trusted root without anybody in it: cosign 2.5 wants the file, though a key needs none
echo '{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}' >"$tmp/nobody.json"
sed -n '/^$/,/^[=-]/p' KEYS/apt.asc | grep -v '^[=-]' | base64 -d >"$tmp/apt.gpg"
mkdir -p "$tmp/apt/lists/partial"
tag='signatures/provenance.intoto.jsonl'
try minisign 'Signature and comment signature verified' \
    'minisign -Vm SHA256SUMS -x signatures/SHA256SUMS.minisig -p KEYS/release.minisign.pub'
try openssl 'Verified OK' 'openssl dgst -sha256 -verify KEYS/release.ecdsa.pub -signature "$tmp/sig" SHA256SUMS'
try ssh-keygen 'Good "ispvm-release" signature' \
    'ssh-keygen -Y verify -f KEYS/release.ssh.pub -I release@ispvm -n ispvm-release -s signatures/SHA256SUMS.sshsig < SHA256SUMS'
try sqv '' 'sqv --keyring KEYS/apt.asc --signature-file signatures/SHA256SUMS.asc SHA256SUMS'
try gpgv 'Good signature' 'gpgv --keyring "$tmp/apt.gpg" signatures/SHA256SUMS.asc SHA256SUMS'
try 'gpgv, InRelease' 'Good signature' 'gpgv --keyring "$tmp/apt.gpg" apt/dists/trixie/InRelease'
try 'gpgv, Release.gpg' 'Good signature' 'gpgv --keyring "$tmp/apt.gpg" apt/dists/trixie/Release.gpg apt/dists/trixie/Release'
try 'sqv, InRelease' '' 'sqv --keyring KEYS/apt.asc --cleartext --output "$tmp/Release" apt/dists/trixie/InRelease'
try 'cosign, raw' 'Verified OK' \
    'cosign verify-blob --key KEYS/release.ecdsa.pub --signature signatures/SHA256SUMS.sig --insecure-ignore-tlog=true SHA256SUMS'
try 'cosign, bundle' 'Verified OK' \
    'cosign verify-blob --key KEYS/release.ecdsa.pub --bundle signatures/SHA256SUMS.sigstore.json --new-bundle-format --trusted-root "$tmp/nobody.json" --insecure-ignore-tlog=true SHA256SUMS'
try 'cosign, provenance' 'Verified OK' \
    "cosign verify-blob-attestation --key KEYS/release.ecdsa.pub --signature $tag --type slsaprovenance1 --insecure-ignore-tlog=true install"
try 'apt, signed-by' 'InRelease' \
    'echo "deb [signed-by=$PWD/KEYS/apt.asc] file:$PWD/apt trixie main" > "$tmp/list" && apt-get update -o Dir::Etc::SourceList="$tmp/list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$tmp/apt/lists" -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any'
exit "$failed"
