#!/bin/sh
# Check a release of the ISPVisualMonitor appliance: whole, ours, fresh. No network, only tools of a bare Debian 13.
#
#   verify.sh --fingerprint HEX [--attestations N] [--state FILE [--record]] [--accept-stale REASON]
#             [--allow-test-key] [--with TOOL] [--demo-attacks] [TREE]
#
# TREE is the unpacked release (default: the directory of this file). HEX is `cat KEYS/*.asc KEYS/*.pub | sha256sum`, compared
# with what you got from us another way: a bundle cannot vouch for its own keys. TOOL is the first there is of openssl,
# minisign, ssh-keygen, sqv and gpgv. verify.py gives the same answers. Exit 0: good. 1: refused. 2: could not be decided.
set -eu
export LC_ALL=C
say() { printf 'ok  %-12s %s\n' "$1" "$2"; }
refuse() { printf 'REFUSED  %s: %s' "$1" "$2" | tr -cd ' -~'; echo; exit 1; } # no name moves the cursor
undecided() { echo "UNDECIDED  $1"; exit 2; }
usage() { echo "verify.sh: $1; the usage is at the top of $0" >&2; exit 2; }
sha() { sha256sum <"$1" | cut -c 1-64; }
has() { [ "$2" ] && [ "$(printf '%s\n' "$2" | grep -Eax -e "$1" | head -n 1)" = "$2" ]; } # all of the text, one line
field() { case $2 in *" $1="*) set -- "${2#*" $1="}"; echo "${1%% *}" ;; esac; }
unbase64() { printf %s "$1" | base64 -d >"$2" 2>/dev/null && [ "$(base64 -w 0 <"$2")" = "$1" ]; }
lacks() { # manifest, names; prints the first that is not there; a name that ends with / stands for a file below it
    cut -c 67- "$1" | awk -v names="$2" 'BEGIN { n = split(names, need, " ") }
        { for (i = 1; i <= n; i++) if ($0 == need[i] || (need[i] ~ /\/$/ && index($0, need[i]) == 1)) have[i] = 1 }
        END { for (i = 1; i <= n; i++) if (!(i in have)) { print need[i]; exit } }'
}
VERSION='[0-9]+\.[0-9]+\.[0-9]+' NUMBER='[1-9][0-9]{0,8}' SHA='[0-9a-f]{64}' TIME='[0-9T:Z-]{20}'

here=$(cd "$(dirname "$0")" && pwd)
fingerprint='' attestations=0 state='' record='' stale='' test_key='' tool='' demo='' tree=''
while [ $# -gt 0 ]; do
    case $1 in
        --fingerprint) fingerprint=${2-}; has "$SHA" "$fingerprint" || usage "$1: 64 hexadecimal digits"; shift ;;
        --attestations) attestations=${2-}; has '0|[1-9][0-9]{0,2}' "$attestations" || usage "$1: a number"; shift ;;
        --state) state=${2-}; [ "$state" ] || usage "$1: a file"; shift ;;
        --accept-stale) stale=${2-}; has '[ -~]*[!-~][ -~]*' "$stale" || usage "$1: a reason in one line"; shift ;;
        --with) tool=${2-}; has 'openssl|minisign|ssh-keygen|sqv|gpgv' "$tool" || usage "$1: no such tool"; shift ;;
        --record) record=1 ;;
        --allow-test-key) test_key=1 ;;
        --demo-attacks) demo=1 ;;
        -*) usage "$1: no such option" ;;
        *) [ -z "$tree" ] || usage "$1: one tree at a time"; tree=$1 ;;
    esac
    shift
done
[ -z "$record" ] || [ "$state" ] || usage "--record needs --state FILE"
[ -z "$state" ] || state=$(realpath "$state")
cd "${tree:-$here}" 2>/dev/null || usage "$tree: no such directory"
[ -e SHA256SUMS ] || [ -e signatures ] || usage "$PWD is no unpacked release"

if [ "$demo" ]; then # on copies that share their blocks with the original: files are replaced, never written to
    tmp=$(mktemp -d "$(dirname "$PWD")/.demo-attacks-XXXXXX") caught=0 attacks=0
    trap 'rm -rf "$tmp"' EXIT
    # shellcheck disable=SC2317 # the attacks call it
    edit() { sed "$1" "$2" >"$2.new" && mv "$2.new" "$2"; }
    while IFS='|' read -r what how; do
        cp -al . "$tmp/tree" && (cd "$tmp/tree" && eval "$how") && attacks=$((attacks + 1))
        said=$("$here/verify.sh" ${fingerprint:+--fingerprint "$fingerprint"} ${test_key:+--allow-test-key} \
            ${tool:+--with "$tool"} "$tmp/tree" 2>&1) || true
        case $said in *REFUSED*) caught=$((caught + 1)) answer="caught  ${said##*REFUSED  }" ;; *) answer='NOT CAUGHT' ;; esac
        printf '%-46s %s\n' "$what" "$answer"
        rm -rf "$tmp/tree"
    done <<'ATTACKS'
one byte of the installer is changed|edit '1s/./X/' install
a file is added|echo '- hosts: all' >ansible/extra.yml
a file is missing|rm VERIFY.md
a file is renamed|mv install install2
a file is a link out of the tree|ln -sf /etc/passwd install
a line is added to the manifest|edit '$p' SHA256SUMS
the manifest is empty|rm SHA256SUMS; : >SHA256SUMS
the minisign signature is stripped|rm signatures/SHA256SUMS.minisig
the ECDSA signature is stripped|rm signatures/SHA256SUMS.sig
a signature is emptied|rm signatures/SHA256SUMS.minisig; : >signatures/SHA256SUMS.minisig
the sequence in the signed comment is raised|edit 's/ sequence=/&9/' signatures/SHA256SUMS.minisig
a public key is exchanged|edit '2s/...$/xyz/' KEYS/release.minisign.pub
ATTACKS
    echo "$caught of $attacks attacks caught"
    [ "$caught" = "$attacks" ]
    exit
fi

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
now=$(date -u +%Y-%m-%dT%H:%M:%SZ) old=''
for each in ${tool:-openssl minisign ssh-keygen sqv gpgv ''}; do
    tool=$each
    if command -v "$tool" >/dev/null; then break; else tool=''; fi
done
[ "$tool" ] || undecided "no openssl, minisign, ssh-keygen, sqv or gpgv on this host; verify.py needs none of them"

# What was installed before, if the operator keeps it.
if [ "$state" ] && [ -e "$state" ]; then
    IFS= read -r old <"$state" || true
    { has "ispvm-release-state sequence=$NUMBER version=$VERSION manifest=$SHA fingerprint=$SHA seen=$TIME" "$old" &&
        [ "$(tail -c 1 "$state" | wc -l)" = 1 ] && ! sed 1d "$state" | grep -Eavxq 'stale [ -~]+' &&
        ! tr '\0' '\t' <"$state" | grep -q "$(printf '\t')"; } ||
        refuse bad-state "$state is not what --record writes; restore it from a backup"
fi

# Plain files only.
odd=$(find . \( ! -type f ! -type d -o -type f -perm /6000 \) -print -quit)
[ -z "$odd" ] || refuse odd-file "$odd: a link, not a plain file, or set-user-id"
for name in SHA256SUMS signatures/INDEX signatures/SHA256SUMS.minisig signatures/SHA256SUMS.sig \
    KEYS/apt.asc KEYS/release.ecdsa.pub KEYS/release.minisign.pub KEYS/release.ssh.pub; do
    [ -f "$name" ] || refuse missing-file "$name"
done

# The keys are those that the operator knows, and not test keys.
cat KEYS/apt.asc KEYS/release.ecdsa.pub KEYS/release.minisign.pub KEYS/release.ssh.pub >"$tmp/keys"
found=$(sha "$tmp/keys") known=${fingerprint:-$(field fingerprint "$old")}
[ "$known" ] || [ "$test_key" ] || undecided "--fingerprint is missing: whose keys do you trust? See VERIFY.md, step 1"
[ "${known:-$found}" = "$found" ] || refuse unknown-key "KEYS/: their fingerprint is not the one you gave"
mark=''
case $(sed -n 2p KEYS/release.minisign.pub | tr -d '\0') in RWRURVNUT05MW[Q-Za-f]*) mark=1 ;; esac # the key id is TESTONLY
if grep -raq TEST-ONLY KEYS signatures/SHA256SUMS.minisig; then mark=1; fi
[ -z "$mark" ] || [ "$test_key" ] || refuse test-key "KEYS/: a key made for tests (TEST-ONLY); --allow-test-key accepts it"
say keys "fingerprint $found${mark:+ TEST-ONLY}"

# A minisign signature (prehashed Ed25519), by minisign or by openssl: signed, signature, key; sets $comment or $fault.
minisig() {
    fault="$2 does not cover $1, or was changed" one='' two='' three='' four='' first='' public=''
    { IFS= read -r one; IFS= read -r two; IFS= read -r three; IFS= read -r four; } <"$2" || true
    { IFS= read -r first; IFS= read -r public; } <"$3" || true
    printf '%s\n' "$one" "$two" "$three" "$four" | cmp -s - "$2" && printf '%s\n' "$first" "$public" | cmp -s - "$3" || return
    case "$one ${three%%: *} $two" in 'untrusted comment: ispvm signature trusted comment RU'[QRST]*[!=]=) ;; *) return 1 ;; esac
    case "$public $four" in RW[QRST]*[!=]' '*[!=]==) ;; *) return 1 ;; esac
    [ "${#two} ${#four} ${#public}" = "100 88 56" ] && unbase64 "$public" "$tmp/key" && unbase64 "$two" "$tmp/packed" &&
        unbase64 "$four" "$tmp/all.sig" && cmp -s -i 2 -n 8 "$tmp/key" "$tmp/packed" || return
    comment=${three#trusted comment: }
    if [ "$tool" = minisign ]; then minisign -V -q -m "$1" -x "$2" -p "$3" >/dev/null 2>&1; return; fi
    { printf '\060\052\060\005\006\003\053\145\160\003\041\000' && tail -c 32 "$tmp/key"; } >"$tmp/key.der"
    tail -c 64 "$tmp/packed" >"$tmp/sig"
    openssl dgst -blake2b512 -binary -out "$tmp/digest" "$1"
    printf %s "$comment" | cat "$tmp/sig" - >"$tmp/all"
    for part in "digest sig" "all all.sig"; do
        openssl pkeyutl -verify -pubin -keyform DER -inkey "$tmp/key.der" -rawin -in "$tmp/${part% *}" \
            -sigfile "$tmp/${part#* }" >/dev/null 2>&1 || return
    done
}
ecdsa() {
    IFS= read -r one <signatures/SHA256SUMS.sig && printf '%s\n' "$one" | cmp -s - signatures/SHA256SUMS.sig &&
        unbase64 "$one" "$tmp/ecdsa" && [ "$(wc -c <"$tmp/ecdsa")" -le 72 ] && # of more, openssl looks at the first 72
        openssl dgst -sha256 -verify KEYS/release.ecdsa.pub -signature "$tmp/ecdsa" SHA256SUMS >/dev/null 2>&1
}
case $tool in
    openssl | minisign)
        how='Ed25519 (minisign)'
        minisig SHA256SUMS signatures/SHA256SUMS.minisig KEYS/release.minisign.pub || refuse bad-signature "$fault"
        if [ "$tool" = openssl ]; then
            how="$how and ECDSA P-256"
            ecdsa || refuse bad-signature "signatures/SHA256SUMS.sig does not cover SHA256SUMS"
        fi
        ;;
    ssh-keygen)
        how='SSH'
        ssh-keygen -Y verify -f KEYS/release.ssh.pub -I release@ispvm -n ispvm-release -s signatures/SHA256SUMS.sshsig \
            <SHA256SUMS >/dev/null 2>&1 || refuse bad-signature "signatures/SHA256SUMS.sshsig does not cover SHA256SUMS"
        ;;
    *)
        how='OpenPGP'
        case $tool in
            sqv) sqv --keyring KEYS/apt.asc --signature-file signatures/SHA256SUMS.asc SHA256SUMS ;;
            gpgv)
                sed -n '/^$/,/^[=-]/p' KEYS/apt.asc | grep -v '^[=-]' | base64 -d >"$tmp/keyring" || true
                gpgv --keyring "$tmp/keyring" signatures/SHA256SUMS.asc SHA256SUMS
                ;;
        esac >/dev/null 2>&1 || refuse bad-signature "signatures/SHA256SUMS.asc does not cover SHA256SUMS"
        ;;
esac
case $tool in openssl | minisign) ;; *) how="$how (signatures/ itself needs openssl, minisign or verify.py)" ;; esac
say signatures "$how over SHA256SUMS, by $tool"
comment=$(sed -n '3s/^trusted comment: //p' signatures/SHA256SUMS.minisig | tr -d '\0')
has "ispvm-release version=$VERSION sequence=$NUMBER min-upgrade-from=$VERSION not-after=$TIME commit=[0-9a-f]{40} \
index=$SHA( TEST-ONLY)?" "$comment" ||
    refuse bad-comment "signatures/SHA256SUMS.minisig: its trusted comment is not that of a release"
release=$comment version=$(field version "$comment") sequence=$(field sequence "$comment") limit=$(field not-after "$comment")
[ "$(sha signatures/INDEX)" = "$(field index "$comment")" ] || refuse bad-index "signatures/INDEX is not the one that was signed"

# Every file is listed, and as it was signed; nothing is missing, nothing is extra.
OWN='signatures/attestations/[a-z0-9-]+/(SHA256SUMS|SHA256SUMS\.minisig|buildinfo\.json)'
for name in SHA256SUMS signatures/INDEX; do
    tr '\0' '\t' <"$name" | awk -v name="$name" -v ends="$(wc -l <"$name")" -v own="^$OWN\$" '
        {
            path = substr($0, 67)
            signing = path ~ /^(signatures|KEYS)\// || path ~ /^apt\/dists\/trixie\/(InRelease|Release\.gpg)$/
            if (substr($0, 1, 64) !~ /^[0-9a-f]+$/ || substr($0, 65, 2) != "  " || $0 !~ /^[] !#-[^-~]+$/ ||
                path == "" || path ~ /^[-\/]/ || path ~ /\/$/ || path ~ /\/\// || path ~ /(^|\/)\.\.?(\/|$)/)
                print NR ": not a SHA-256, two spaces and a clean relative path"
            else if (path "" <= last "") print NR ": not sorted, or there twice"
            else if (signing != (name == "signatures/INDEX") || path == "SHA256SUMS" || path ~ own ||
                path ~ /^signatures\/(INDEX|SHA256SUMS\.minisig)$/) print NR ": this path is not for this manifest"
            last = path
        }
        END { if (!NR || NR != ends) print NR ": empty, or its last line is cut" }' >"$tmp/bad"
    [ ! -s "$tmp/bad" ] || refuse bad-manifest "$name line $(head -n 1 "$tmp/bad")"
done
cat SHA256SUMS signatures/INDEX >"$tmp/listed"
{ cut -c 67- "$tmp/listed" && printf '%s\n' SHA256SUMS signatures/INDEX signatures/SHA256SUMS.minisig; } | sort >"$tmp/names"
find . -type f | cut -c 3- | sort >"$tmp/found"
comm -23 "$tmp/names" "$tmp/found" >"$tmp/missing"
[ ! -s "$tmp/missing" ] || refuse missing-file "$(sed -n 1p "$tmp/missing")"
comm -13 "$tmp/names" "$tmp/found" | grep -Eavx "$OWN" >"$tmp/extra" || true
[ ! -s "$tmp/extra" ] || refuse extra-file "$(sed -n 1p "$tmp/extra")"
sha256sum --strict --quiet -c "$tmp/listed" >"$tmp/changed" 2>/dev/null ||
    refuse changed-file "$(head -n 5 "$tmp/changed" | sed 's/: FAILED.*//' | paste -s -d ' ')"
lacking=$(lacks SHA256SUMS "SHA512SUMS VERIFY.md agent/ ansible/ apt/dists/trixie/Release apt/pool/ compat/ docs/ install \
licences/ provenance.json release.json sbom/ seeds/ server/ source/ verify.py verify.sh wheelhouse/amd64/ wheelhouse/arm64/")
[ -z "$lacking" ] || refuse incomplete "the release was made without $lacking"
lacking=$(lacks signatures/INDEX "KEYS/apt.asc KEYS/release.ecdsa.pub KEYS/release.minisign.pub KEYS/release.ssh.pub \
KEYS/root.json apt/dists/trixie/InRelease apt/dists/trixie/Release.gpg signatures/SHA256SUMS.asc \
signatures/SHA256SUMS.sig signatures/SHA256SUMS.sigstore.json signatures/SHA256SUMS.sshsig \
signatures/provenance.intoto.jsonl signatures/tuf/1.root.json signatures/tuf/timestamp.json")
[ -z "$lacking" ] || refuse incomplete "the release was signed without $lacking"
say files "$(wc -l <"$tmp/listed") as signed, none missing, none extra, no links"

# release.json says what the signed comment says; it is written one name a line.
said=$(awk -F '"' '/^  "/ { value[$2] = $4 == "" ? $3 : $4 } END { gsub(/[: ,]/, "", value["sequence"])
    split("version sequence min_upgrade_from not_after commit", names, " ")
    for (i = 1; i <= 5; i++) { n = names[i]; if (value[n] == "") exit; gsub(/_/, "-", n); printf "%s=%s ", n, value[names[i]] }
    }' release.json)
case "$said" in *commit=*) ;; *) refuse bad-release "release.json cannot be read" ;; esac
case "$release" in "ispvm-release $said"*) ;; *) refuse bad-comment "release.json is not what the signed comment says" ;; esac
awk -F '"' '$2 == "path" { p = $4 } $2 == "sha256" { print $4 "  " p }' release.json >"$tmp/artefacts"
{ [ -s "$tmp/artefacts" ] && ! grep -Fvxq -f SHA256SUMS "$tmp/artefacts"; } ||
    refuse bad-release "release.json: its artefacts are not those of SHA256SUMS"
say release "commit $(field commit "$comment"), $(wc -l <"$tmp/artefacts") artefacts"

# Provenance and SBOM speak of these files.
sed -n 's/^    {"name": "\(.*\)", "digest": {"sha256": "\([^"]*\)"}},\{0,1\}$/\2  \1/p' provenance.json >"$tmp/subjects"
grep -Ev '^.{64}  (SHA512SUMS|provenance\.json)$' SHA256SUMS | cmp -s - "$tmp/subjects" ||
    refuse bad-provenance "provenance.json: its subjects are not the files of SHA256SUMS"
say provenance "$(wc -l <"$tmp/subjects") subjects, as in SHA256SUMS"
find sbom -name '*.cdx.json' -exec grep -Eaoh "\"$SHA\"" {} + | tr -d '"' >"$tmp/known" || true
awk 'FILENAME != "SHA256SUMS" { known[$0]; next } /\.(whl|deb|pex)$/ { n++; if (!(substr($0, 1, 64) in known)) print substr($0, 67) }
    END { print n + 0 }' "$tmp/known" SHA256SUMS >"$tmp/carried"
[ "$(wc -l <"$tmp/carried")" = 1 ] || refuse bad-sbom "$(sed -n 1p "$tmp/carried"): no SBOM under sbom/ has its SHA-256"
say sbom "$(cat "$tmp/carried") wheels, Debian packages and PEX files, all in the SBOM"

# Builders who got the same bytes; any attestation that is there must hold.
builders='' number=0 present=$(grep -Eax "$OWN" "$tmp/found" | cut -d / -f 3 | sort -u)
for builder in $present; do
    folder=signatures/attestations/$builder key=KEYS/builders/$builder.minisign.pub
    case $tool in
        openssl | minisign) ;;
        *) [ "$attestations" = 0 ] || undecided "--attestations needs openssl, minisign or verify.py"; continue ;;
    esac
    for name in "$folder/SHA256SUMS" "$folder/SHA256SUMS.minisig" "$folder/buildinfo.json" "$key"; do
        [ -f "$name" ] || refuse bad-attestation "$builder: $name is missing"
    done
    minisig "$folder/SHA256SUMS" "$folder/SHA256SUMS.minisig" "$key" || refuse bad-attestation "$builder: $fault"
    [ "$comment" = "ispvm-attestation builder=$builder buildinfo=$(sha "$folder/buildinfo.json")" ] ||
        refuse bad-attestation "$builder: its trusted comment names another builder or buildinfo.json"
    cmp -s "$folder/SHA256SUMS" SHA256SUMS || refuse bad-attestation "$builder got other files than this release"
    sed -n 2p "$key" >>"$tmp/builders"
    builders="$builders $builder" number=$((number + 1))
done
[ "$number" = 0 ] || [ "$(sort -u "$tmp/builders" | wc -l)" = "$number" ] || refuse bad-attestation "two builders have one key"
[ "$number" -ge "$attestations" ] || refuse few-attestations "$number of $attestations builders got these bytes"
say attestations "$number ($attestations asked for)$builders"

# No way back to an older release, no second release of one number, no leap over an upgrade stop.
if [ "$old" ]; then
    last=$(field sequence "$old") from=$(field version "$old") least=$(field min-upgrade-from "$release")
    [ "$sequence" -ge "$last" ] || refuse rollback "sequence $sequence is older than $last, which was recorded here"
    [ "$sequence" != "$last" ] || [ "$(field manifest "$old")" = "$(sha SHA256SUMS)" ] ||
        refuse second-release "sequence $sequence was recorded here with other files"
    [ "$(printf '%s\n' "$least" "$from" | sort -t . -k 1,1n -k 2,2n -k 3,3n | sed -n 1p)" = "$least" ] ||
        refuse upgrade-path "upgrade from $from to $least or later first"
    say history "sequence $sequence after $last"
    now=$(printf '%s\n' "$now" "$(field seen "$old")" | sort | sed -n 2p) # a clock that was set back changes nothing
elif [ "$state" ]; then say history "nothing recorded before"; else say history "not kept (--state FILE)"; fi

# Not a release that is kept from its updates.
late=''
if [ "$(printf '%s\n' "$now" "$limit" | sort | sed -n 2p)" != "$limit" ]; then late=1; fi
[ -z "$late" ] || [ "$stale" ] || refuse expired "not after $limit, and it is $now; --accept-stale REASON accepts it"
say freshness "not after $limit${late:+, STALE, accepted: $stale}"

if [ "$record" ]; then
    {
        echo "ispvm-release-state sequence=$sequence version=$version manifest=$(sha SHA256SUMS) fingerprint=$found seen=$now"
        if [ -e "$state" ]; then sed 1d "$state"; fi
        if [ "$late" ]; then printf 'stale %s %s %s\n' "$now" "$version" "$stale"; fi
    } >"$state.part"
    mv "$state.part" "$state"
fi
echo "GOOD  ispvm $version, sequence $sequence${mark:+, but signed with a TEST KEY: this proves nothing about who made it}"
