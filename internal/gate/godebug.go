package gate

import (
	"fmt"
	"strings"
)

// godebug has the settings of Go's runtime and libraries that security depends on, with
// their safe values. go.mod pins the same, so that neither a newer language version there
// nor a toolchain changes one; a test compares them. The variable GODEBUG of a process
// would take precedence (https://go.dev/doc/godebug).
var godebug = map[string]string{
	"cryptocustomrand":     "0", // keys only from the system's random numbers
	"httplaxcontentlength": "0", // requests to the admin address have one reading
	"panicnil":             "0",
	"rsa1024min":           "1", // no smaller RSA keys
	"tls10server":          "0", // no TLS before 1.2, and neither old suites nor SHA-1, unless configured
	"tls3des":              "0",
	"tlsmaxrsasize":        "8192", // bits; larger keys of clients cost too much CPU (CVE-2023-29409)
	"tlsmlkem":             "1",    // the groups with ML-KEM are offered
	"tlsrsakex":            "0",
	"tlssha1":              "0",
	"tlsunsafeekm":         "0",
	"x509negativeserial":   "1", // negative ones are wrong and in use; with 0 crypto/tls would fail the handshake, and PostgreSQL does not
	"x509usepolicies":      "1",
}

// CheckGODEBUG returns an error for each setting in the value of the variable GODEBUG that
// undoes a safe one. Others, such as fips140, are free.
func CheckGODEBUG(value string) (problems []error) {
	for setting := range strings.SplitSeq(value, ",") {
		name, v, _ := strings.Cut(strings.TrimSpace(setting), "=")
		v, _, _ = strings.Cut(v, "#") // a pattern of bisect
		if safe, ok := godebug[name]; ok && v != safe {
			problems = append(problems, fmt.Errorf("the variable GODEBUG has %s=%s, which weakens TLS or certificates; remove it (the safe value is %s)", name, v, safe))
		}
	}
	return problems
}
