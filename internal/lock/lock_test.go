package lock_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/lock"
)

var (
	noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	pin  = strings.Repeat("0123456789abcdef", 4)
)

// values reads "cn=alice user=app"; a value ends at a space, and + stands for one.
func values(text string) url.Values {
	v := url.Values{}
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		v.Add(name, strings.ReplaceAll(value, "+", " "))
	}
	return v
}

func filter(t testing.TB, text string) lock.Filter {
	t.Helper()
	f, err := lock.ParseFilter(values(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return f
}

// request reads "user/database key=value ...". Any name of a certificate adds one.
func request(t testing.TB, text string) *acl.Request {
	t.Helper()
	words := strings.Fields(text)
	q := &acl.Request{Source: netip.MustParseAddr("10.1.2.3"), Session: "8a0vq2cqj8o3k-7"}
	q.User, q.Database, _ = strings.Cut(words[0], "/")
	if q.Database == "" {
		q.Database = q.User
	}
	var id acl.Identity
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		value = strings.ReplaceAll(value, "+", " ")
		switch key {
		case "from":
			q.Source = netip.MustParseAddr(value)
			continue
		case "session":
			q.Session = value
			continue
		case "replication":
			q.Replication = map[string]acl.Replication{"database": acl.LogicalReplication, "physical": acl.PhysicalReplication}[value]
			continue
		case "certificate":
		case "cn":
			id.CN = value
		case "serial":
			id.Serial = value
		case "issuer":
			id.Issuer = value
		case "spki":
			id.SPKI = value
		default:
			t.Fatalf("%s: %q is not known", text, key)
		}
		q.Certificate = &id
	}
	return q
}

// table has one lock of a filter.
func set(t testing.TB, filters ...string) *lock.Set {
	t.Helper()
	table, err := lock.Open("")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range filters {
		if _, _, err := table.Add(lock.Lock{Filter: filter(t, text), By: "test"}, noon); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return table.Set()
}

// Each line is a lock, a client, and whether the lock matches it. The set must find what
// the filter alone matches, however it looks.
func TestMatches(t *testing.T) {
	t.Parallel()
	locked, free := true, false
	for _, c := range []struct {
		filter, client string
		want           bool
	}{
		{"cn=alice", "app cn=alice", locked},
		{"cn=alice", "app cn=bob", free},
		{"cn=alice", "app cn=Alice", free},
		{"cn=alice", "app cn=alice2", free},
		{"cn=alice", "alice", free},
		{"cn=alice", "alice certificate", free},
		{"cn=a*", "app cn=alice", free},
		{"cn=a*", "app cn=a*", locked},
		{"cn=all", "app cn=alice", free},
		{"cn=Alice+Smith", "app cn=Alice+Smith", locked},
		{"cn=" + strings.Repeat("x", 63), "app cn=" + strings.Repeat("x", 63), locked},
		{"serial=1A2B", "app serial=1A2B", locked},
		{"serial=1a2b", "app serial=1A2B", locked},
		{"serial=1a:2b", "app serial=1A2B", locked},
		{"serial=0x1a2b", "app serial=1A2B", locked},
		{"serial=serial=1A2B", "app serial=1A2B", locked}, // as "openssl x509 -serial" prints it
		{"serial=001a2b", "app serial=1A2B", locked},
		{"serial=a2b", "app serial=0A2B", locked},
		{"serial=a2b", "app serial=A2B0", free},
		{"serial=0", "app serial=00", locked},
		{"serial=0", "app certificate", locked}, // a serial number of zero has no digits
		{"serial=0", "app", free},
		{"serial=1", "app", free},
		{"serial=1 issuer=CN=CA", "app serial=01 issuer=CN=CA", locked},
		{"serial=1 issuer=CN=CA", "app serial=01 issuer=CN=CB", free},
		{"serial=1 issuer=CN=CA", "app serial=02 issuer=CN=CA", free},
		{"issuer=CN=CA", "app serial=02 issuer=CN=CA", locked},
		{"issuer=CN=CA", "app issuer=CN=CA,O=X", free},
		{"issuer=CN=CA", "app", free},
		{`issuer=CN=CA,O=A\,+B`, `app issuer=CN=CA,O=A\,+B`, locked},
		{"spki=" + pin, "app spki=" + pin, locked},
		{"spki=" + strings.ToUpper(pin), "app spki=" + pin, locked},
		{"spki=" + pin, "app spki=" + strings.Repeat("0", 64), free},
		{"spki=" + pin, "app", free},
		{"user=app", "app", locked},
		{"user=app", "app/shop cn=x", locked},
		{"user=app", "App", free},
		{"user=app", "other/app", free},
		{"database=shop", "app/shop", locked},
		{"database=shop", "shop/app", free},
		{"database=shop", "app/shop replication=database", locked},
		{"database=shop", "app/shop replication=physical", free},
		{"user=app database=shop", "app/shop", locked},
		{"user=app database=shop", "app/other", free},
		{"user=app database=shop", "other/shop", free},
		{"source=10.0.0.0/8", "app from=10.255.0.1", locked},
		{"source=10.0.0.0/8", "app from=11.0.0.1", free},
		{"source=10.1.2.3", "app from=10.1.2.3", locked},
		{"source=10.1.2.3", "app from=10.1.2.4", free},
		{"source=10.0.0.0/8", "app from=::ffff:10.1.1.1", locked},
		{"source=::ffff:10.1.2.3", "app from=10.1.2.3", locked},
		{"source=2001:db8::/32", "app from=2001:db8:1::7", locked},
		{"source=2001:db8::/32", "app from=2001:db9::7", free},
		{"source=0.0.0.0/0", "app from=192.0.2.1", locked},
		{"source=0.0.0.0/0", "app from=2001:db8::1", free},
		{"source=::/0", "app from=2001:db8::1", locked},
		{"source=fe80::/10", "app from=fe80::1%eth0", locked},
		{"session=8a0vq2cqj8o3k-7", "app", locked},
		{"session=8a0vq2cqj8o3k-8", "app", free},
		{"session=8a0vq2cqj8o3k-7", "app session=8a0vq2cqj8o3k-70", free},
		{"cn=alice user=app source=10.0.0.0/8", "app cn=alice", locked},
		{"cn=alice user=app source=10.0.0.0/8", "app cn=alice from=11.1.1.1", free},
		{"cn=alice user=app source=10.0.0.0/8", "root cn=alice", free},
		{"cn=alice user=app source=10.0.0.0/8", "app cn=bob", free},
		{"cn=alice database=shop", "app/shop cn=alice replication=physical", free},
		{"source=10.0.0.0/8 session=8a0vq2cqj8o3k-7", "app", locked},
		{"source=11.0.0.0/8 session=8a0vq2cqj8o3k-7", "app", free},
	} {
		f, q := filter(t, c.filter), request(t, c.client)
		if got := f.Matches(q); got != c.want {
			t.Errorf("%s matches %s: %t", c.filter, c.client, got)
		}
		for _, s := range []*lock.Set{set(t, c.filter), set(t, "cn=nobody", "source=192.0.2.128/25", c.filter, "issuer=CN=No", "source=2001:db8:ffff::/48")} {
			if got := s.Find(q, noon) != nil; got != c.want {
				t.Errorf("the set finds %s for %s: %t", c.filter, c.client, got)
			}
		}
		if again, err := lock.ParseFilter(f.Values()); err != nil || again != f {
			t.Errorf("%s became %+v, %v", c.filter, again, err)
		}
	}
}

// The zero filter, and no set, match nobody.
func TestNothingMatchesNobody(t *testing.T) {
	t.Parallel()
	q := request(t, "app cn=alice")
	if f := (lock.Filter{}); f.Matches(q) || !f.IsZero() || f.IsEverybody() {
		t.Error("the zero filter matches")
	}
	var none *lock.Set
	if none.Find(q, noon) != nil || none.Len() != 0 || none.At(noon) != nil || !none.NextChange(noon).IsZero() {
		t.Error("no set has a lock")
	}
}

func TestEverybody(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"source=0.0.0.0/0": true, "source=::/0": true, "source=0.0.0.0/1": false, "source=0.0.0.0/0 user=app": false, "user=app": false,
	} {
		if f := filter(t, text); f.IsEverybody() != want {
			t.Errorf("%s: %t", text, !want)
		}
	}
}

// What no lock can mean is refused with the reason.
func TestFilterMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ filter, want string }{
		{"cn=", "is empty"},
		{"user=", "is empty"},
		{"database=", "is empty"},
		{"source=", "is empty"},
		{"serial=", "is not a serial number"},
		{"spki=", "is not a SHA-256"},
		{"issuer=", "is empty"},
		{"session=", "is not the id of a session"},
		{"cn=+", "is only spaces"},
		{"cn=a\x1b[31m", "control character"},
		{"user=a\x00b", "control character"},
		{"database=\x7f", "control character"},
		{"cn=\xff", "not UTF-8"},
		{"issuer=CN=\x07", "control character"},
		{"cn=" + strings.Repeat("x", 64), "longer than 63 bytes"},
		{"user=" + strings.Repeat("ä", 32), "longer than 63 bytes"},
		{"issuer=CN=" + strings.Repeat("x", 1000), "longer than 1000 bytes"},
		{"serial=12G4", "is not a serial number"},
		{"serial=-5", "is not a serial number"},
		{"serial=" + strings.Repeat("1", 129), "is not a serial number"},
		{"spki=abcd", "is not a SHA-256"},
		{"issuer=CN+=+CA", "RFC 2253"},
		{"issuer=CN=CA,+O=X", "RFC 2253"},
		{"issuer=CA", "RFC 2253"},
		{"source=10.0.0.1/8", "bits set to the right"},
		{"source=localhost", "is not a network"},
		{"source=fe80::1%eth0", "zone"},
		{"session=7", "is not the id"},
		{"session=8a0vq2cqj8o3k-", "is not the id"},
		{"session=8a0vq2cqj8o3k-07", "is not the id"},
		{"session=8a0vq2cqj8o3k-7x", "is not the id"},
		{"session=8A0VQ2CQJ8O3K-7", "is not the id"},
		{"session=-7", "is not the id"},
		{"user=a user=b", "user is there 2 times"},
	} {
		v := url.Values{}
		for word := range strings.SplitSeq(c.filter, " ") {
			name, value, _ := strings.Cut(word, "=")
			v.Add(name, strings.ReplaceAll(value, "+", " "))
		}
		if f, err := lock.ParseFilter(v); err == nil || !strings.Contains(err.Error(), c.want) || !f.IsZero() {
			t.Errorf("%q: %v, %+v", c.filter, err, f)
		}
	}
}

// A lock holds until the second of its end, and holds again if the clock goes back over it.
func TestLocksEndToTheSecond(t *testing.T) {
	t.Parallel()
	table, _ := lock.Open("")
	until := noon.Add(time.Hour + 700*time.Millisecond)
	l, s, err := table.Add(lock.Lock{Filter: filter(t, "cn=alice"), Until: &until}, noon)
	if err != nil {
		t.Fatal(err)
	}
	q, end := request(t, "app cn=alice"), noon.Add(time.Hour)
	if !l.Until.Equal(end) || !s.NextChange(noon).Equal(end) || !s.NextChange(end).IsZero() {
		t.Errorf("it ends at %v, and the next change is %v", l.Until, s.NextChange(noon))
	}
	for _, at := range []struct {
		time.Time
		want bool
	}{{noon, true}, {end.Add(-time.Nanosecond), true}, {end, false}, {end.Add(time.Hour), false}, {end.Add(-time.Second), true}} {
		if got := s.Find(q, at.Time) != nil; got != at.want || (len(s.At(at.Time)) == 1) != at.want {
			t.Errorf("it holds at %v: %t", at.Time, got)
		}
	}
}

// A lock of the past is a mistake.
func TestLockInThePast(t *testing.T) {
	t.Parallel()
	table, _ := lock.Open("")
	for _, until := range []time.Time{noon, noon.Add(-time.Hour), noon.Add(999 * time.Millisecond)} {
		if _, _, err := table.Add(lock.Lock{Filter: filter(t, "cn=alice"), Until: &until}, noon); err == nil || !strings.Contains(err.Error(), "not in the future") {
			t.Errorf("%v: %v", until, err)
		}
	}
	if table.Set().Len() != 0 {
		t.Error("there is a lock")
	}
}

// Finding one of many locks costs as much as finding one of few.
func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1, lock.MaxLocks} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			writeLocks(b, dir, n)
			table, err := lock.Open(dir)
			if err != nil {
				b.Fatal(err)
			}
			q, s := request(b, "app/shop cn=alice serial=1A spki="+pin), table.Set()
			b.ReportAllocs()
			for b.Loop() {
				if s.Find(q, noon) != nil {
					b.Fatal("found")
				}
			}
		})
	}
}

// The set finds a lock for a client exactly where one of its locks holds and matches, for
// random locks, clients and times.
func TestSetAgreesWithModel(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	one := func(of ...string) string { return of[r.IntN(len(of))] }
	condition := func() string {
		return one("cn="+one("a", "b"), "serial="+one("1", "0A"), "issuer=CN="+one("a", "b"), "user="+one("a", "b"), "database="+one("a", "b"),
			"source="+one("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::/0", "2001:db8::/32"), "session=8a0vq2cqj8o3k-"+one("1", "2"))
	}
	found, free := 0, 0
	for range 2000 {
		table, _ := lock.Open("")
		var locks []lock.Lock
		for range r.IntN(6) {
			conditions := condition()
			for range r.IntN(3) {
				conditions += " " + condition()
			}
			f, err := lock.ParseFilter(values(conditions))
			if err != nil {
				continue // a condition is there twice
			}
			l := lock.Lock{Filter: f, By: "test"}
			if r.IntN(2) == 0 {
				until := noon.Add(time.Duration(1+r.IntN(10)) * time.Minute)
				l.Until = &until
			}
			if l, _, err = table.Add(l, noon); err != nil {
				t.Fatal(err)
			}
			locks = append(locks, l)
		}
		for range 20 {
			client := one("a", "b") + "/" + one("a", "b") + " from=" + one("10.1.2.3", "10.9.9.9", "192.0.2.1", "2001:db8::1", "::1") + " session=8a0vq2cqj8o3k-" + one("1", "2")
			if r.IntN(4) > 0 {
				client += " cn=" + one("a", "b") + " serial=" + one("01", "0A") + " issuer=CN=" + one("a", "b")
			}
			if r.IntN(5) == 0 {
				client += " replication=physical"
			}
			q, at := request(t, client), noon.Add(time.Duration(r.IntN(12*60))*time.Second)
			want := slices.ContainsFunc(locks, func(l lock.Lock) bool { return (l.Until == nil || at.Before(*l.Until)) && modelMatches(l.Filter, q) })
			if got := table.Set().Find(q, at); (got != nil) != want || got != nil && !modelMatches(got.Filter, q) {
				t.Fatalf("seed %d: %v is found for %s at %v, want one: %t", seed, got, client, at, want)
			}
			if want {
				found++
			} else {
				free++
			}
		}
	}
	if found < 1000 || free < 1000 {
		t.Errorf("%d found and %d not: the test sees too little", found, free)
	}
}

// modelMatches reads the conditions as they were written.
func modelMatches(f lock.Filter, q *acl.Request) bool {
	id := q.Certificate
	if id == nil {
		id = &acl.Identity{}
	}
	if f.Source != "" {
		_, network, err := net.ParseCIDR(f.Source)
		if err != nil || !network.Contains(net.ParseIP(q.Source.String())) {
			return false
		}
	}
	if f.Database != "" && q.Replication == acl.PhysicalReplication {
		return false
	}
	has := func(want, have string) bool { return want == "" || want == have }
	return has(f.CN, id.CN) && has(f.Serial, strings.TrimLeft(id.Serial, "0")) && has(f.Issuer, id.Issuer) && has(f.SPKI, id.SPKI) &&
		has(f.User, q.User) && has(f.Database, q.Database) && has(f.Session, q.Session)
}
