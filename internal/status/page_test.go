package status

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, h http.Handler, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, http.NoBody))
	return w
}

// element is a piece of a page, its text included.
type element struct {
	name     string
	attrs    map[string]string
	children []*element
	text     string // its own and that of all below, with single spaces
}

// parsePage reads a page strictly: whatever is not closed, not quoted or nested
// wrongly fails the test.
func parsePage(t *testing.T, text string) *element {
	t.Helper()
	_, body, ok := strings.Cut(text, "<!doctype html>")
	if !ok {
		if _, body, ok = strings.Cut(text, "<!DOCTYPE html>"); !ok {
			t.Fatalf("no doctype: %.80q", text)
		}
	}
	body = regexp.MustCompile(`<meta([^>]*)>`).ReplaceAllString(body, "<meta$1/>") // the one kind of element without an end
	d := xml.NewDecoder(strings.NewReader(body))
	root := &element{}
	stack := []*element{root}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return root
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		switch token := token.(type) {
		case xml.StartElement:
			space(stack, token.Name.Local)
			e := &element{name: token.Name.Local, attrs: map[string]string{}}
			for _, a := range token.Attr {
				e.attrs[a.Name.Local] = a.Value
			}
			top := stack[len(stack)-1]
			top.children = append(top.children, e)
			stack = append(stack, e)
		case xml.EndElement:
			space(stack, token.Name.Local)
			stack = stack[:len(stack)-1]
		case xml.CharData:
			add(stack, string(token))
		}
	}
}

func add(stack []*element, text string) {
	for _, e := range stack {
		e.text += text
	}
}

// space parts what a browser shows apart.
func space(stack []*element, name string) {
	if !slices.Contains([]string{"code", "b", "strong", "a", "span", "time", "head", "style"}, name) {
		add(stack, " ")
	}
}

// all returns the elements of a name, in order.
func (e *element) all(name string) (found []*element) {
	for _, c := range e.children {
		if c.name == name {
			found = append(found, c)
		}
		found = append(found, c.all(name)...)
	}
	return found
}

func (e *element) words() string { return strings.Join(strings.Fields(e.text), " ") }

// accessible fails unless whoever does not see the tables can use them.
func accessible(t *testing.T, page *element) {
	t.Helper()
	if html := page.all("html"); len(html) != 1 || html[0].attrs["lang"] != "en" {
		t.Error("the page does not name its language")
	}
	if len(page.all("h1")) != 1 || len(page.all("main")) != 1 || len(page.all("title")) != 1 {
		t.Error("there must be one h1, one main and one title")
	}
	tables := page.all("table")
	if len(tables) == 0 {
		t.Error("there is no table")
	}
	for _, table := range tables {
		captions := table.all("caption")
		if len(captions) != 1 || captions[0].words() == "" {
			t.Errorf("a table has no caption: %s", table.words())
			continue
		}
		heads := table.all("thead")
		if len(heads) != 1 {
			t.Errorf("%q has no head", captions[0].words())
			continue
		}
		columns := heads[0].all("th")
		for _, th := range columns {
			if th.attrs["scope"] != "col" || th.words() == "" {
				t.Errorf("%q: a column has no scope or no name", captions[0].words())
			}
		}
		for _, row := range table.all("tbody")[0].all("tr") {
			th := row.all("th")
			if len(th) != 1 || th[0].attrs["scope"] != "row" || len(th)+len(row.all("td")) != len(columns) {
				t.Errorf("%q: a row without its head, or with %d cells for %d columns: %s", captions[0].words(), 1+len(row.all("td")), len(columns), row.words())
			}
		}
	}
	ids := map[string]bool{}
	for _, h := range page.all("h2") {
		ids[h.attrs["id"]] = true
	}
	for _, s := range page.all("section") {
		if !ids[s.attrs["aria-labelledby"]] {
			t.Errorf("a section is labelled by %q, which is no heading", s.attrs["aria-labelledby"])
		}
	}
	for _, svg := range page.all("svg") {
		if svg.attrs["aria-hidden"] != "true" {
			t.Error("a picture is read out")
		}
	}
}

// fetchesNothing fails if there is anything in a page that would be loaded or run.
func fetchesNothing(t *testing.T, page *element) {
	t.Helper()
	for _, name := range []string{"script", "link", "img", "image", "iframe", "object", "embed", "form", "base", "use"} {
		if n := len(page.all(name)); n > 0 {
			t.Errorf("there are %d <%s>", n, name)
		}
	}
	var walk func(*element)
	walk = func(e *element) {
		for name, value := range e.attrs {
			switch {
			case name == "style", strings.HasPrefix(name, "on"), name == "src":
				t.Errorf("<%s> has %s", e.name, name)
			case name == "href" && !strings.HasPrefix(value, "/"):
				t.Errorf("a link leads to %q", value)
			}
		}
		for _, c := range e.children {
			walk(c)
		}
	}
	walk(page)
	if css := page.all("style")[0].text; strings.Contains(css, "url(") || strings.Contains(css, "@import") {
		t.Error("the style loads something")
	}
}

var samples = map[string]func() Status{"sample": sample, "degraded": degraded, "empty": empty}

func TestPage(t *testing.T) {
	t.Parallel()
	for name, s := range samples {
		t.Run(name, func(t *testing.T) {
			w := get(t, Page(s), "/")
			if w.Code != http.StatusOK {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			page := parsePage(t, w.Body.String())
			accessible(t, page)
			fetchesNothing(t, page)
			if len(page.all("meta")) != 4 {
				t.Error("the page refreshes itself without having been asked to")
			}
		})
	}
}

// The page shows these texts in this order.
func TestPageSays(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"sample": {
			"The gate is open. Nothing needs attention.", "sessions open 187 sessions since the start 58,448 connections refused 269 first certificate expiry 70 days first revocation list update 5 days",
			"10.0.0.6:5432 behind load balancers at 10.0.0.2, 10.0.0.3", "sources from 10.20.0.0/16", "CN=Example Servers G2,O=Example in its chain 2030-06-18 1,300",
			"CN=Example Clients,O=Example /etc/pgwicket/crl.d/clients.crl, number 4711 1,284 2026-11-25 in 5 days 84 %",
			"app 142", "application 142", "client_closed 57,903", "probe 33,120", "Connections limits.max_connections 189 1,000 18 %",
			"Sessions of the busiest user and database limits.max_sessions_per_account 142 no limit",
			"In force since 2026-11-26 08:20:30 UTC, 3 hours ago; loaded because files changed.", "Changed: /etc/pgwicket/crl.d/clients.crl",
			"11:19:50 40 seconds ago certificate_missing 10.20.7.31:51022 at 10.0.0.5:5432 app in shop",
			"certificate_revoked session terminated", "2026-11-25 04:20:30 31 hours ago plaintext", "source_not_allowed the address is in no network of acl.allow 203.0.113.77:44210 at 10.0.0.5:5432 unknown",
			"pgwicket 0.1.0 · go1.26.6 · linux/amd64 · started 2026-11-03",
		},
		"degraded": {
			"The gate is open. 9 things need attention.", "Now The last reload failed 4 minutes ago; the configuration of 2026-11-26 08:20:30 UTC is still in force.",
			"Watch The certificate CN=db.example.com,O=Example (/etc/pgwicket/ecdsa.crt) expires in 6 days.",
			"Now The certificate CN=db.example.com,O=Example (/etc/pgwicket/rsa.crt) expired 26 hours ago.",
			"Now The revocation list of CN=Example Clients,O=Example became stale 50 minutes ago", "Watch The revocation list of CN=Example Root,O=Example becomes stale in 3 days",
			"Watch The OCSP response for /etc/pgwicket/ecdsa.crt has expired", "Watch Connections: 861 of 1,000", "Now Connections of the busiest source: 200 of 200",
			"/etc/pgwicket/pgwicket.yaml:12 tls.certificates[1].key_file", "/etc/pgwicket/pgwicket.yaml:40 warning: acl.allow[3]", `by "pgwicket reload"`,
			"50 minutes ago stale", "first certificate expiry expired",
		},
		"empty": {
			"There are no open sessions.", "No connection was refused since the start.", "There are no revocation lists", "sessions open 0", "loaded at the start",
			"pgwicket.yaml:4 warning: tls.crl_file is missing",
		},
	} {
		text := parsePage(t, get(t, Page(samples[name]), "/").Body.String()).all("body")[0].words()
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: there is no %q in\n%s", name, w, text)
			}
		}
	}
}

// Outcomes that there were none of do not stand between the reader and what there was.
func TestPageFoldsZeros(t *testing.T) {
	t.Parallel()
	page := parsePage(t, get(t, Page(sample), "/").Body.String())
	for _, table := range page.all("table") {
		for _, cell := range table.all("td") {
			if table.attrs["class"] == "counts" && cell.words() == "0" {
				t.Errorf("a row of 0: %s", table.words())
			}
		}
	}
	var folded string
	for _, details := range page.all("details") {
		if _, open := details.attrs["open"]; open {
			t.Error("a list of zeros is open")
		}
		folded += details.words()
	}
	for _, want := range []string{"40 more are 0", "tls_cipher", "backend_lost", "over_limit"} {
		if !strings.Contains(folded, want) {
			t.Errorf("%q is not folded away: %s", want, folded)
		}
	}
	if page := parsePage(t, get(t, Page(empty), "/").Body.String()); !strings.Contains(page.words(), "Refused since the start, by outcome: none") {
		t.Errorf("of a new gate: %s", page.words())
	}
}

// Without show_clients neither the page nor the JSON has data of a client.
func TestPageHidesClients(t *testing.T) {
	t.Parallel()
	hidden := func() Status {
		s := sample()
		s.ShowsClients = false
		s.Sessions.Users, s.Sessions.Rules = nil, nil
		for i := range s.Locks {
			s.Locks[i].Filter, s.Locks[i].Reason = "", ""
		}
		for i := range s.Refusals {
			r := &s.Refusals[i]
			r.Source, r.User, r.Database, r.CertSubject, r.Reason = "", "", "", "", ""
		}
		return s
	}
	text := get(t, Page(hidden), "/").Body.String()
	page := parsePage(t, text)
	accessible(t, page)
	for _, w := range []string{"187 sessions open. Users and rules are shown with admin.show_clients: true", "certificate_missing 10.0.0.5:5432", "clients are shown with admin.show_clients: true"} {
		if !strings.Contains(page.words(), w) {
			t.Errorf("there is no %q in\n%s", w, page.words())
		}
	}
	for _, key := range []string{"source", "user", "database", "cert_subject", "reason", "users", "filter"} {
		if strings.Contains(get(t, JSON(hidden), "/status.json").Body.String(), `"`+key+`":`) {
			t.Errorf("the JSON has %q", key)
		}
	}
}

// Any name of a client is shown as text.
func TestPageEscapes(t *testing.T) {
	t.Parallel()
	const evil = `</td><script src="//evil.example/x.js"></script><img src=x onerror=alert(1)>{{.}}`
	s := func() Status {
		s := sample()
		s.Sessions.Users[0].Name, s.Refusals[0].User, s.Refusals[0].Reason, s.Refusals[0].CertSubject = evil, evil, evil, evil
		s.Policy[0].Text, s.CRLs[0].Issuer, s.Build.Host = evil, evil, evil
		return s
	}
	page := parsePage(t, get(t, Page(s), "/").Body.String())
	fetchesNothing(t, page)
	accessible(t, page)
	if n := strings.Count(page.words(), evil); n != 7 {
		t.Errorf("it stands there %d times", n)
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	refused := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { Refuse(w, http.StatusForbidden, "because") })
	for name, h := range map[string]http.Handler{"page": Page(sample), "json": JSON(sample), "refusal": refused} {
		w := get(t, h, "/")
		for key, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		} {
			if got := w.Header().Get(key); got != want {
				t.Errorf("%s: %s is %q", name, key, got)
			}
		}
		csp := w.Header().Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none';", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: no %s in %q", name, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") {
			t.Errorf("%s: %q", name, csp)
		}
		if name == "json" {
			continue
		}
		// The digest is of what is really sent, or the browser would show the page bare.
		_, rest, _ := strings.Cut(w.Body.String(), "<style>")
		css, _, _ := strings.Cut(rest, "</style>")
		sum := sha256.Sum256([]byte(css))
		if want := "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(csp, want) {
			t.Errorf("%s: no %s in %q", name, want, csp)
		}
	}
	if w := get(t, refused, "/"); w.Code != 403 || !strings.Contains(parsePage(t, w.Body.String()).words(), "Forbidden because 403") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"": "", "?refresh=5": "5", "?refresh=30": "30", "?refresh=7": "7", "?refresh=0": "", "?refresh=-1": "", "?refresh=99999": "", "?refresh=5;url=//evil.example": "",
	} {
		page := parsePage(t, get(t, Page(sample), "/"+query).Body.String())
		got := ""
		for _, m := range page.all("meta") {
			if m.attrs["http-equiv"] == "refresh" {
				got = m.attrs["content"]
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
}

func TestByHost(t *testing.T) {
	t.Parallel()
	h := ByHost(func() []string { return []string{"gate.example"} }, Page(sample))
	for host, want := range map[string]int{
		"127.0.0.1:10432": 200, "127.0.0.1": 200, "[::1]:10432": 200, "[::1]": 200, "localhost:10432": 200, "LOCALHOST": 200, "10.0.0.5:10432": 200,
		"evil.example": 421, "evil.example:10432": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421, "": 200, "gate.example": 200, "Gate.Example:10432": 200, "evil.gate.example": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d, want %d", host, w.Code, want)
		}
		if want == 421 && strings.Contains(w.Body.String(), "Policy") {
			t.Errorf("%q: it shows the page", host)
		}
	}
}

// The JSON is the same state, with lists that are never null.
func TestJSON(t *testing.T) {
	t.Parallel()
	for name, s := range samples {
		w := get(t, JSON(s), "/status.json")
		if w.Header().Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%s: %q", name, w.Header().Get("Content-Type"))
		}
		var got Status
		d := json.NewDecoder(w.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if want := s().derive(); len(got.Attention) != len(want.Attention) || !reflect.DeepEqual(got.Certificates, want.Certificates) || !reflect.DeepEqual(got.CRLs, want.CRLs) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if text := get(t, JSON(func() Status { return Status{Reload: Reload{Successful: true}} }), "/").Body.String(); strings.Contains(text, "null") {
		t.Errorf("null in %s", text)
	}
}

// docs/monitoring.md explains every key of it, and none that is not there.
func TestJSONIsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| key of /status.json | meaning |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	if !ok {
		t.Fatal("there is no table of the keys")
	}
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^|]*\\w[^|]* \\|$").FindAllStringSubmatch(table, -1) {
		got = append(got, m[1])
	}
	want := keys(reflect.TypeFor[Status](), "")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("documented\n%q\nand there are\n%q", got, want)
	}
}

// keys are the paths of everything in the JSON of a struct.
func keys(t reflect.Type, below string) (all []string) {
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		path, kind := below+name, f.Type
		if kind.Kind() == reflect.Slice {
			path, kind = path+"[]", kind.Elem()
		}
		if kind.Kind() == reflect.Pointer && kind.Elem().Kind() == reflect.Struct {
			kind = kind.Elem()
		}
		all = append(all, path)
		if kind.Kind() == reflect.Struct && kind != reflect.TypeFor[time.Time]() {
			all = append(all, keys(kind, path+".")...)
		}
	}
	return all
}

func TestDeriveDoesNotChangeItsInput(t *testing.T) {
	t.Parallel()
	s := degraded()
	before := degraded()
	_ = s.derive()
	if !reflect.DeepEqual(s, before) {
		t.Error("derive has changed its input")
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		number(0): "0", number(999): "999", number(1000): "1,000", number(uint64(1234567)): "1,234,567", number(-3): "0",
		plural(1, "day"): "1 day", plural(2000, "day"): "2,000 days",
		ago(at.Add(-time.Second), at): "1 second ago", ago(at.Add(-90*time.Second), at): "1 minute ago", ago(at.Add(47*time.Hour), at): "in 47 hours",
		ago(at.Add(-49*time.Hour), at): "2 days ago", ago(at, at): "0 seconds ago",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// A certificate that lives for a day does not always ask for attention, and a long one in time.
	for _, c := range []struct {
		life, left time.Duration
		want       Level
	}{
		{24 * time.Hour, 12 * time.Hour, Good},
		{24 * time.Hour, 5 * time.Hour, Warn},
		{24 * time.Hour, -time.Second, Bad},
		{8760 * time.Hour, 15 * 24 * time.Hour, Good},
		{8760 * time.Hour, 13 * 24 * time.Hour, Warn},
	} {
		s := Status{Time: at, Reload: Reload{Successful: true}, Certificates: []Certificate{{NotBefore: at.Add(c.left - c.life), NotAfter: at.Add(c.left)}}}
		if got := s.derive().Certificates[0].Level; got != c.want {
			t.Errorf("%v of %v left: %s, want %s", c.left, c.life, got, c.want)
		}
	}
}
