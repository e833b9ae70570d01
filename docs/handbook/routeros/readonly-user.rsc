# Least-privilege access for the ISPVisualMonitor agent, RouterOS 6.43 or newer and RouterOS 7.
# Paste the whole file into a terminal, or /import it. Running it again changes nothing.
# Nothing here lets the agent write, reboot, or read secrets. The braces keep it one block when it is pasted.
{
:local agentPassword ""
:if ([:len $agentPassword] < 16) do={ :error "set agentPassword to at least 16 random characters first" }

# The group may read through the API and nothing else. "sensitive" stays off: passwords and keys are hidden from it.
# RouterOS refuses a policy that it does not know, and the versions know different ones.
:local policy "read,api,!test,!local,!telnet,!ssh,!ftp,!reboot,!write,!policy,!winbox,!password,!web,!sniff,!sensitive,!romon"
:if ([:pick [/system resource get version] 0 2] = "6.") do={ :set policy "$policy,!dude,!tikapp" } else={ :set policy "$policy,!rest-api" }
:if ([:len [/user group find name=ispvm-readonly]] = 0) do={ /user group add name=ispvm-readonly policy=$policy }
/user group set [find name=ispvm-readonly] policy=$policy

:if ([:len [/user find name=ispvm]] = 0) do={ /user add name=ispvm group=ispvm-readonly password=$agentPassword address="192.0.2.10/32" }
/user set [find name=ispvm] group=ispvm-readonly password=$agentPassword address="192.0.2.10/32"

# A certificate of the router's own; the agent pins its fingerprint.
:if ([:len [/certificate find name=ispvm-api]] = 0) do={ /certificate add name=ispvm-api common-name=[/system identity get name] key-size=2048 days-valid=3650 key-usage=digital-signature,key-encipherment,tls-server; /certificate sign ispvm-api; :delay 5s }
/ip service set api-ssl certificate=ispvm-api address="192.0.2.10/32" tls-version=only-1.2 disabled=no
/ip service set api disabled=yes
:put ("fingerprint_sha256: " . [/certificate get ispvm-api fingerprint])
}
