package chains

// Why the gate refuses what OpenSSL admits.
const (
	alone         = "a delta list alone is not complete; OpenSSL takes it for a complete one"
	berList       = "lists are read in DER"
	firstEntry    = "what one of two entries for a serial number revokes is revoked; OpenSSL takes one of them"
	foreignEntry  = "an entry with certificateIssuer makes a list an indirect one"
	fromFuture    = "a list that begins in the future revokes already"
	goPoint       = "Go cannot read a certificate whose distribution point has a relative name"
	malformedList = "the list is malformed by RFC 5280, which OpenSSL overlooks"
	together      = "what one of several lists revokes is revoked; OpenSSL takes the newest"
	unusable      = "a list that cannot be used still revokes"
)

// Why the gate admits what OpenSSL refuses.
const (
	anchorList  = "with partial_chain an anchor that is not self-signed needs no list; OpenSSL admits no such chain at all"
	newestAlone = "OpenSSL takes the newest list of a name and refuses if it cannot verify that one; the gate takes the newest that it can verify"
)

var stricterLists = map[string]string{
	"delta alone":                                                     alone,
	"delta without a number alone":                                    alone,
	"bytes behind the list":                                           berList,
	"indefinite length":                                               berList,
	"length of too many bytes":                                        berList,
	"serial twice, removed first":                                     firstEntry,
	"certificateIssuer":                                               foreignEntry,
	"certificateIssuer of another":                                    foreignEntry,
	"early that revokes and fresh":                                    fromFuture,
	"point with a relative name and issuer, for its full form":        goPoint,
	"point with a relative name and issuer, for that relative name":   goPoint,
	"point with a relative name and issuer, for users":                goPoint,
	"point with a relative name and issuer, without a scope":          goPoint,
	"point with a relative name, for its full form":                   goPoint,
	"point with a relative name, for that relative name":              goPoint,
	"point with a relative name, for users":                           goPoint,
	"point with a relative name, without a scope":                     goPoint,
	"point with another relative name, for users":                     goPoint,
	"point with another relative name, without a scope":               goPoint,
	"a newer one with a broken number beside a good one that revokes": malformedList,
	"a newer one with a broken scope beside a good one that revokes":  malformedList,
	"broken number":                                                   malformedList,
	"broken reason of another":                                        malformedList,
	"empty number":                                                    malformedList,
	"for an empty field of name":                                      malformedList,
	"for an unknown field":                                            malformedList,
	"for users, twice":                                                malformedList,
	"for users, two bytes":                                            malformedList,
	"for wrong order":                                                 malformedList,
	"number with a leading zero":                                      malformedList,
	"revoked at no date":                                              malformedList,
	"root's for an empty field of name":                               malformedList,
	"root's for an unknown field":                                     malformedList,
	"root's for users, two bytes":                                     malformedList,
	"root's for wrong order":                                          malformedList,
	"scope that is malformed":                                         malformedList,
	"signature: another algorithm inside":                             malformedList,
	"two authorities":                                                 malformedList,
	"two numbers":                                                     malformedList,
	"version 1 with an entry's":                                       malformedList,
	"version 1 with extensions":                                       malformedList,
	"version 128":                                                     malformedList,
	"version 3":                                                       malformedList,
	"with a broken authority":                                         malformedList,
	"newer delta and base that revokes":                               together,
	"newer delta that removes and base that revokes":                  together,
	"older that revokes and newer":                                    together,
	"partition that revokes and newer complete list":                  together,
	"two halves, the second revokes":                                  together,
	"two points, both lists, the older revokes":                       together,
	"a newer one of some reasons that revokes beside a good one":      unusable,
	"a newer one of users and CAs that revokes beside a good one":     unusable,
	"a newer one with an entry of an unknown critical one that revokes beside a good one": unusable,
	"a newer one with an unknown critical extension that revokes beside a good one":       unusable,
}

var laxerLists = map[string]string{
	"a newer one by another key beside a good one":                                            newestAlone,
	"a newer one by another key that revokes beside a good one":                               newestAlone,
	"a newer one by another key, without authority beside a good one":                         newestAlone,
	"a newer one by another key, without authority that revokes beside a good one":            newestAlone,
	"a newer one with a signature algorithm that is not known beside a good one":              newestAlone,
	"a newer one with a signature algorithm that is not known that revokes beside a good one": newestAlone,
	"partial: leaf alone":                               anchorList,
	"partial: leaf alone, revoked":                      anchorList,
	"partial: sub-CA and root's list":                   anchorList,
	"partial: sub-CA and root's list, which revokes it": anchorList,
	"partial: sub-CA with its list":                     anchorList,
	"partial: sub-CA, its root and both lists":          anchorList,
	"partial: upper CA with two lists":                  anchorList,
}
