package acl_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgwicket/acl"
)

var seedFlag = flag.Uint64("seed", 0, "of the random rules; 0: another one each time")

// seed is the same for all tests of a run, which run side by side.
var seed = sync.OnceValue(func() uint64 {
	if *seedFlag == 0 {
		return uint64(time.Now().UnixNano())
	}
	return *seedFlag
})

// modelDecides is check_hba: the number of the first rule that fits, -1 without any. It reads the rules as they are
// written, once more for every question.
func modelDecides(rules []acl.RuleOptions, superusers []string, q *acl.Request) int {
	for i, o := range rules {
		if !modelFits(o, superusers, q) {
			continue
		}
		for _, earlier := range rules[:i] {
			if o.Action == "allow" && o.Backend != earlier.Backend && modelMayFit(earlier, superusers, q) && !modelLiteral(o.Users, q.User) {
				return -1
			}
		}
		return i
	}
	return -1
}

func modelLiteral(users []string, name string) bool {
	return slices.Contains(users, name) && name != "all" && name != "samename" && !strings.Contains(name, "*")
}

// modelMayFit reports whether a rule would fit if everybody were a member of the roles that are not known.
func modelMayFit(o acl.RuleOptions, superusers []string, q *acl.Request) bool {
	if slices.Contains(modelKnown[q.Session], o.Backend) || !slices.ContainsFunc(o.Users, func(u string) bool { return u[0] == '+' }) {
		return false
	}
	o.Users = append([]string{"all"}, o.Users...)
	return modelFits(o, superusers, q)
}

func modelFits(o acl.RuleOptions, superusers []string, q *acl.Request) bool {
	return modelSource(o, q) && modelListener(o, q) && modelReplication(o, q) && modelDatabase(o, q) &&
		modelCertificate(o, q) && modelServerName(o, q) && modelUser(o, q) && modelSuperuser(o, superusers, q) && modelTime(o, q)
}

func modelSource(o acl.RuleOptions, q *acl.Request) bool {
	for _, text := range o.Sources {
		if _, network, err := net.ParseCIDR(text); err == nil && network.Contains(q.Source.AsSlice()) {
			return true
		}
		if ip := net.ParseIP(text); ip != nil && ip.Equal(q.Source.AsSlice()) {
			return true
		}
	}
	return o.Sources == nil
}

// modelTime counts the minutes from the beginning of today, and of yesterday for the nights that began then.
func modelTime(o acl.RuleOptions, q *acl.Request) bool {
	if from, err := time.Parse(time.RFC3339, o.From); err == nil && q.At.Unix() < from.Unix() {
		return false
	}
	if until, err := time.Parse(time.RFC3339, o.Until); err == nil && q.At.Unix() >= until.Unix() {
		return false
	}
	if o.Timezone == "" {
		return true
	}
	zone, err := time.LoadLocation(o.Timezone)
	if err != nil {
		return false
	}
	ranges := o.Hours
	if ranges == nil {
		ranges = []string{"0-24"}
	}
	local := q.At.In(zone)
	for ago := range 2 {
		day := strings.ToLower(local.AddDate(0, 0, -ago).Weekday().String())[:3]
		minutes := ago*24*60 + local.Hour()*60 + local.Minute()
		if o.Weekdays != nil && !slices.Contains(o.Weekdays, day) {
			continue
		}
		for _, text := range ranges {
			var start, end int
			if n, err := fmt.Sscanf(text, "%d-%d", &start, &end); n != 2 || err != nil {
				return false
			}
			if end <= start {
				end += 24
			}
			if start*60 <= minutes && minutes < end*60 {
				return true
			}
		}
	}
	return false
}

func modelListener(o acl.RuleOptions, q *acl.Request) bool {
	for _, text := range o.Listeners {
		if text == q.Listener {
			return true
		}
	}
	return o.Listeners == nil
}

func modelReplication(o acl.RuleOptions, q *acl.Request) bool {
	switch o.Replication {
	case "none":
		return q.Replication == acl.NoReplication
	case "database":
		return q.Replication == acl.LogicalReplication
	case "physical":
		return q.Replication == acl.PhysicalReplication
	}
	return o.Action == "reject" || q.Replication != acl.PhysicalReplication
}

// modelDatabase is check_db.
func modelDatabase(o acl.RuleOptions, q *acl.Request) bool {
	for _, text := range o.Databases {
		if text == "all" {
			return true
		}
		if q.Replication == acl.PhysicalReplication {
			continue
		}
		if text == "sameuser" {
			if q.Database == q.User {
				return true
			}
			continue
		}
		if _, ok := modelMatches(text, q.Database); ok {
			return true
		}
	}
	return o.Databases == nil
}

// modelName is one name in a certificate, and what a rule asks of those of its kind.
type modelName struct {
	kind, asked, name string
}

// modelNames lists what a rule asks of a certificate and what the certificate answers, each with each.
func modelNames(o acl.RuleOptions, id *acl.Identity) (kinds []string, all []modelName) {
	if id == nil {
		id = &acl.Identity{}
	}
	for _, k := range []struct {
		kind, asked string
		names       []string
	}{
		{"cn", o.Certificate.CN, []string{id.CN}},
		{"dn", o.Certificate.DN, []string{id.DN}},
		{"dns", o.Certificate.DNS, id.DNS},
		{"email", o.Certificate.Email, id.Email},
		{"uri", o.Certificate.URI, id.URI},
		{"issuer", o.Certificate.Issuer, []string{id.Issuer}},
		{"spki", o.Certificate.SPKI, []string{id.SPKI}},
	} {
		if k.asked == "" {
			continue
		}
		kinds = append(kinds, k.kind)
		for _, name := range k.names {
			if name != "" {
				all = append(all, modelName{k.kind, k.asked, name})
			}
		}
	}
	return kinds, all
}

func modelCertificate(o acl.RuleOptions, q *acl.Request) bool {
	kinds, all := modelNames(o, q.Certificate)
	met := map[string]bool{}
	for _, n := range all {
		asked, match := n.asked, modelMatches
		switch n.kind {
		case "dns":
			match = modelMatchesHost
		case "dn", "issuer":
			match = modelMatchesDN
		case "spki":
			asked = strings.ToLower(strings.ReplaceAll(asked, ":", ""))
		}
		if _, ok := match(asked, n.name); ok {
			met[n.kind] = true
		}
	}
	return len(met) == len(kinds)
}

func modelServerName(o acl.RuleOptions, q *acl.Request) bool {
	for _, text := range o.SNI {
		if _, ok := modelMatchesHost(text, q.SNI); ok {
			return true
		}
	}
	return o.SNI == nil
}

// modelUser is check_role, and check_ident_usermap for what depends on the certificate.
func modelUser(o acl.RuleOptions, q *acl.Request) bool {
	for _, text := range o.Users {
		switch {
		case text == "samename":
			if q.Certificate != nil && q.Certificate.CN == q.User {
				return true
			}
		case text[0] != '/' && strings.Contains(text, `\1`):
			_, all := modelNames(o, q.Certificate)
			for _, n := range all {
				if found, ok := modelMatches(n.asked, n.name); ok && found != "" && strings.Replace(text, `\1`, found, 1) == q.User {
					return true
				}
			}
		case text[0] == '+':
			if modelMember(o, text[1:], q) {
				return true
			}
		default:
			if _, ok := modelMatches(text, q.User); ok {
				return true
			}
		}
	}
	return o.Users == nil
}

// modelMembers are the members of roles, by backend.
var modelMembers = map[string]map[string][]string{
	"":      {"a": {"a", "ab", "root"}, "b": {"b", "aa", "a\nb", "all"}, "gone": nil},
	"other": {"a": {"a", "abb", "a*"}, "b": nil, "gone": nil},
}

// modelKnown are the backends that have told their members, by the word in Request.Session.
var modelKnown = map[string][]string{"all": {"", "other"}, "default": {""}, "other": {"other"}, "none": nil, "over": nil}

func modelGroups(known string) acl.Groups {
	told, until := modelKnown[known], time.Time{}
	if known == "over" {
		told, until = modelKnown["all"], modelStart
	}
	groups := acl.Groups{}
	for _, backend := range told {
		groups[backend] = acl.NewMembers(modelMembers[backend], until)
	}
	return groups
}

// modelMember is is_member; what is not known is a reason to refuse.
func modelMember(o acl.RuleOptions, role string, q *acl.Request) bool {
	if !slices.Contains(modelKnown[q.Session], o.Backend) {
		return o.Action == "reject"
	}
	return slices.Contains(modelMembers[o.Backend][role], q.User)
}

func modelSuperuser(o acl.RuleOptions, superusers []string, q *acl.Request) bool {
	if o.Action == "reject" {
		return true
	}
	for _, name := range superusers {
		if name != q.User {
			continue
		}
		for _, text := range o.Users {
			if text == name {
				return true
			}
		}
		return false
	}
	return true
}

// modelRegexes says what the regular expressions of the test mean, by other means than a regular expression, and what
// their group finds.
var modelRegexes = map[string]func(name string) (found string, ok bool){
	"/a":        func(s string) (string, bool) { return "", strings.Contains(s, "a") },
	"/^a":       func(s string) (string, bool) { return "", strings.HasPrefix(s, "a") },
	"/B$":       func(s string) (string, bool) { return "", strings.HasSuffix(s, "B") },
	"/b$":       func(s string) (string, bool) { return "", strings.HasSuffix(s, "b") },
	"/^a.b$":    func(s string) (string, bool) { return "", len(s) == 3 && s[0] == 'a' && s[2] == 'b' },
	"/^a$|^ab$": func(s string) (string, bool) { return "", s == "a" || s == "ab" },
	"/^(.*)$":   func(s string) (string, bool) { return s, true },
	"/^(.*)@x$": func(s string) (string, bool) { return strings.CutSuffix(s, "@x") },
	"/^a(.*)":   func(s string) (string, bool) { return strings.CutPrefix(s, "a") },
	"/^(a)?b$":  func(s string) (string, bool) { return strings.TrimSuffix(s, "b"), s == "b" || s == "ab" },
	"/^a(b)|b$": func(s string) (string, bool) {
		if strings.HasPrefix(s, "ab") {
			return "b", true
		}
		return "", strings.HasSuffix(s, "b")
	},
}

func modelMatches(text, name string) (found string, ok bool) {
	switch {
	case text == "all":
		return "", true
	case text[0] == '/':
		return modelRegexes[text](name)
	case strings.Contains(text, "*"):
		return "", modelGlob(strings.Split(text, ""), strings.Split(name, ""))
	}
	return "", text == name
}

// modelMatchesHost knows no case, of regular expressions neither.
func modelMatchesHost(text, name string) (found string, ok bool) {
	if text == "ALL" {
		return "", strings.EqualFold(name, "all") // which is not the keyword
	}
	return modelMatches(strings.ToLower(text), strings.ToLower(name))
}

// modelMatchesDN takes an escaped character for one that is not the one that it escapes.
func modelMatchesDN(text, name string) (found string, ok bool) {
	if text[0] != '/' && strings.Contains(text, "*") {
		return "", modelGlob(modelEscapes(text), modelEscapes(name))
	}
	return modelMatches(text, name)
}

func modelEscapes(s string) (out []string) {
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			out = append(out, s[i:i+2])
			i++
			continue
		}
		out = append(out, s[i:i+1])
	}
	return out
}

// modelGlob tries all that a star could stand for.
func modelGlob(glob, name []string) bool {
	switch {
	case len(glob) == 0:
		return len(name) == 0
	case glob[0] == "*":
		return modelGlob(glob[1:], name) || len(name) > 0 && modelGlob(glob, name[1:])
	}
	return len(name) > 0 && glob[0] == name[0] && modelGlob(glob[1:], name[1:])
}

// The words are few, so that rules and requests meet.
var (
	modelSources     = []string{"10.0.0.0/8", "10.0.0.1", "0.0.0.0/0", "::/0", "fe80::/10"}
	modelAddrs       = []string{"10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1", "11.0.0.1", "fe80::1", "fe80::1%eth0", "::ffff:10.0.0.2%eth0"}
	modelRoles       = []string{"a", "b", "ab", "abb", "a\nb", "aa", "all", "root", "a*", "samename"}
	modelPatterns    = []string{"all", "a", "b", "ab", "a*", "*b", "*", "a*b", "*a*b*", "ab*b", "/a", "/^a", "/b$", "/^a.b$", "/^a$|^ab$", "root"}
	modelCaptures    = []string{"/^(.*)$", "/^(.*)@x$", "/^a(.*)", "/^(a)?b$", "/^a(b)|b$"}
	modelMails       = []string{"a@x", "b@x", "@x", "a@y", "b", "ab", "root@x", "*@x", "all@x"}
	modelMailPattern = append([]string{"a@x", "*@x", "all", "*a*"}, modelCaptures...)
	modelDNs         = []string{`CN=a`, `CN=a,O=b`, `OU=a\,O=b`, `CN=a\\,O=b`, `CN=a\,,O=b`}
	modelDNPatterns  = []string{"all", "CN=a", "CN=a,O=b", "*,O=b", "CN=a*", `CN=a\,*`, "CN=*,*", "*,O=*", "/a", "/b$", "/^(.*)$"}
	modelPins        = []string{pin, "ff" + pin[2:]}
	modelPinTexts    = []string{pin, strings.ToUpper(pin), colons("ff" + pin[2:])}
	modelHosts       = []string{"a", "b", "ab", "x.b"}
	modelServerNames = []string{"", "a", "B", "Ab", "x.b"}
)

// Four days around the beginning of summer time in Europe.
var (
	modelStart   = time.Date(2027, 3, 26, 0, 0, 0, 0, time.UTC)
	modelMoments = []string{"2027-03-26T20:00:00Z", "2027-03-28T01:00:00+01:00", "2027-03-28T01:00:00Z", "2027-03-29T00:00:00+02:00"}
	modelHours   = []string{"8-18", "22-6", "0-24", "2-3", "0-2", "23-1"}
)

type modelRand struct{ *rand.Rand }

func (r modelRand) one(of []string) string { return of[r.IntN(len(of))] }

// some returns one to three of them, or none at all.
func (r modelRand) some(of []string) (out []string) {
	for range max(0, r.IntN(6)-2) {
		out = append(out, r.one(of))
	}
	return out
}

func (r modelRand) maybe(oneIn int, of []string) string {
	if r.IntN(oneIn) > 0 {
		return ""
	}
	return r.one(of)
}

func (r modelRand) rule() acl.RuleOptions {
	o := acl.RuleOptions{
		Action:      r.one([]string{"allow", "allow", "reject"}),
		Replication: r.maybe(4, []string{"none", "database", "physical"}),
		Users:       r.some(append([]string{"samename", "+a", "+b", "+a", "+gone"}, modelPatterns...)),
	}
	if o.Action == "allow" {
		o.Backend = r.maybe(3, []string{"other"})
	}
	switch r.IntN(6) {
	case 0:
		o.Users = []string{"samename"}
	case 1:
		o.Users = append(o.Users, r.one([]string{`\1`, `\1`, `a\1`, `\1b`}))
		kind := []*string{&o.Certificate.CN, &o.Certificate.Email, &o.Certificate.DNS, &o.Certificate.URI}[r.IntN(4)]
		*kind = r.one(modelCaptures)
		if r.IntN(2) == 0 {
			o.Users = o.Users[len(o.Users)-1:]
			return o
		}
	}
	// All that can be asked at once would hardly ever be met.
	for range 1 + r.IntN(2) {
		switch r.IntN(13) {
		case 0:
			o.Sources = r.some(modelSources)
		case 1:
			o.Listeners = r.some(listeners)
		case 2, 3:
			o.Databases = r.some(append([]string{"sameuser"}, modelPatterns...))
		case 4:
			o.SNI = r.some(append([]string{"A", "ALL", "*B", "/B$"}, modelPatterns...))
		case 5:
			o.Certificate.CN = r.one(append(modelCaptures, modelPatterns...))
		case 6:
			o.Certificate.DN = r.one(modelDNPatterns)
		case 7:
			o.Certificate.Issuer = r.one(modelDNPatterns)
		case 8:
			o.Certificate.DNS = r.one(append([]string{"A", "*B", "/B$", "/^a(.*)"}, modelPatterns...))
		case 9:
			o.Certificate.Email = r.one(modelMailPattern)
		case 10:
			o.Certificate.URI = r.maybe(2, modelMailPattern)
			o.Certificate.SPKI = r.maybe(2, modelPinTexts)
		case 11:
			o.From, o.Until = r.maybe(2, modelMoments[:2]), r.maybe(2, modelMoments[2:])
		case 12:
			o.Hours, o.Weekdays = r.some(modelHours), r.some([]string{"fri", "sat", "sun", "mon"})
			if o.Hours != nil || o.Weekdays != nil {
				o.Timezone = r.one([]string{"UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe"})
			}
		}
	}
	return o
}

func (r modelRand) request() *acl.Request {
	q := &acl.Request{
		Source:      netip.MustParseAddr(r.one(modelAddrs)),
		Listener:    r.one(listeners),
		User:        r.one(modelRoles),
		Database:    r.one(modelRoles),
		Replication: []acl.Replication{0, 0, 0, acl.LogicalReplication, acl.PhysicalReplication}[r.IntN(5)],
		SNI:         r.one(modelServerNames),
		At:          modelStart.Add(time.Duration(r.IntN(4*24*60)) * time.Minute),
		Session:     r.one([]string{"all", "all", "all", "default", "other", "none", "over"}),
	}
	q.Groups = modelGroups(q.Session)
	if r.IntN(5) > 0 {
		q.Certificate = &acl.Identity{
			CN:     r.one(append([]string{""}, modelRoles...)),
			DN:     r.one(append([]string{""}, modelDNs...)),
			Issuer: r.one(modelDNs),
			SPKI:   r.one(modelPins),
			DNS:    r.some(modelHosts),
			Email:  r.some(modelMails),
			URI:    r.some(modelMails),
		}
		switch r.IntN(4) { // people ask for what is theirs
		case 0:
			q.Certificate.CN = q.User
		case 1:
			q.Certificate.Email = append(q.Certificate.Email, q.User+"@x")
		}
	}
	if r.IntN(4) == 0 {
		q.Database = q.User
	}
	return q
}

// The engine and the model decide alike, and Trace tells of the same.
func TestRulesAgreeWithModel(t *testing.T) {
	t.Parallel()
	t.Logf("-seed=%d", seed())
	r := modelRand{rand.New(rand.NewPCG(seed(), 0))}
	names := []string{"root", "abb"}
	took := map[string]int{} // which conditions were met by a request when they mattered
	lists := 0
	for lists < 8_000 {
		var list []acl.RuleOptions
		for range r.IntN(5) {
			list = append(list, r.rule())
		}
		rules, _ := acl.NewRules(list, listeners, names)
		if rules == nil {
			continue // \1 without a group, or with two
		}
		lists++
		for range 15 {
			q := r.request()
			want := modelDecides(list, names, q)
			rule := rules.Decide(q)
			if got := slices.Index(rules.All(), rule); got != want {
				t.Fatalf("-seed=%d: rule %d decides, not %d, of %+v\non %+v\nof %+v\n%v", seed(), got, want, list, *q, q.Certificate, rules.Trace(q))
			}
			checkTrace(t, rules, q, rule)
			count(took, list, names, q, want)
		}
	}
	for _, what := range []string{
		"nobody", "allow", "reject", "sources", "listeners", "databases", "sameuser", "users", "samename", "template", "superuser",
		"cn", "dn", "dns", "email", "uri", "issuer", "spki", "sni", "replication none", "replication database", "replication physical",
		"session logical replication", "session physical replication", "from or until", "hours", "weekdays",
		"group", "group of another backend", "group not known",
	} {
		if took[what] < 60 {
			t.Errorf("-seed=%d: %s took part in %d of %d decisions", seed(), what, took[what], lists*15)
		}
	}
	t.Log(took)
}

// count notes what a decision rested on.
func count(took map[string]int, list []acl.RuleOptions, superusers []string, q *acl.Request, decides int) {
	if decides < 0 {
		took["nobody"]++
		return
	}
	o := list[decides]
	took[o.Action]++
	for what, there := range map[string]bool{
		"sources": o.Sources != nil, "listeners": o.Listeners != nil, "databases": o.Databases != nil, "users": o.Users != nil, "sni": o.SNI != nil,
		"hours": o.Hours != nil, "weekdays": o.Weekdays != nil, "from or until": o.From+o.Until != "",
		"sameuser":                            slices.Contains(o.Databases, "sameuser") && q.Database == q.User,
		"samename":                            slices.Equal(o.Users, []string{"samename"}),
		"template":                            len(o.Users) == 1 && strings.Contains(o.Users[0], `\1`),
		"group":                               slices.Contains(o.Users, "+"+q.User[:1]) && len(modelKnown[q.Session]) > 0,
		"group of another backend":            o.Backend != "" && slices.Contains(o.Users, "+a") && q.Session == "all",
		"group not known":                     slices.Contains(o.Users, "+a") && len(modelKnown[q.Session]) == 0,
		"superuser":                           o.Action == "allow" && slices.Contains(superusers, q.User),
		"replication " + o.Replication:        true,
		fmt.Sprint("session ", q.Replication): true,
	} {
		if there {
			took[what]++
		}
	}
	kinds, _ := modelNames(o, q.Certificate)
	for _, kind := range kinds {
		took[kind]++
	}
}
