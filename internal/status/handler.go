package status

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

//go:embed page.css
var style string

//go:embed page.html
var markup string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"number": func(n any) string {
		if i, ok := n.(int); ok {
			return number(i)
		}
		return number(n.(uint64))
	},
	"ago": ago, "clock": clock, "date": date, "moment": moment, "plural": plural, "span": span, "why": why, "ends": ends,
	"level": func(l Level, percent int) map[string]any { return map[string]any{"Level": l, "Percent": percent} },
	"counts": func(caption, name, unit string, all []Count) map[string]any {
		return map[string]any{"Caption": caption, "Name": name, "Unit": unit, "All": all}
	},
	"share": share, "join": strings.Join, "fields": strings.Fields,
	"style": func() template.CSS { return template.CSS(style) }, //nolint:gosec // it is our own file
}).Parse(markup))

// policy allows the page its one style, by its digest, and nothing else: no
// script, no picture, no frame round it, no form. Whatever a client could smuggle
// into the page would neither run nor call home.
var policy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// refreshes are the seconds that the page offers to be loaded again after.
var refreshes = []int{5, 30}

// slowest bounds what somebody may ask for instead.
const slowest = 3600

// Page serves the status for people. read is called for each request.
func Page(read func() Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		every, err := strconv.Atoi(r.URL.Query().Get("refresh"))
		if err != nil || every < 1 || every > slowest {
			every = 0
		}
		render(w, http.StatusOK, "page", map[string]any{"S": read().settle(), "Every": every, "Refreshes": refreshes})
	})
}

// JSON serves the same for machines.
func JSON(read func() Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, read().settle()) })
}

// WriteJSON answers with a value.
func WriteJSON(w http.ResponseWriter, v any) {
	headers(w, "application/json; charset=utf-8")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v)
}

// Refuse answers that there is nothing to see, and why.
func Refuse(w http.ResponseWriter, code int, why string) {
	render(w, code, "refusal", map[string]any{"Code": code, "Title": http.StatusText(code), "Why": why})
}

func render(w http.ResponseWriter, code int, name string, data any) {
	var b bytes.Buffer // half a page helps nobody
	if err := page.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, "the page cannot be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	headers(w, "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = b.WriteTo(w)
}

func headers(w http.ResponseWriter, content string) {
	h := w.Header()
	h.Set("Content-Type", content)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}

// ByAddress refuses who has asked for this address by a name that is not its own.
// A page in the operator's browser may come from a name that its owner has
// pointed at 127.0.0.1 after the page was loaded (DNS rebinding); to the browser
// this gate is then that page's own server, whose answers it may read. The one
// thing that such a request cannot hide is the name in Host. An address is in no
// danger: it cannot be pointed elsewhere.
func ByAddress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err != nil && !strings.EqualFold(host, "localhost") {
			Refuse(w, http.StatusMisdirectedRequest, "Ask for this page by the address of the gate, or as localhost, not by another name: "+
				"a web page from elsewhere could have that name point here, and read along.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// share is what part of the most common of them a count is, in percent.
func share(c Count, of []Count) uint64 {
	most := slices.MaxFunc(of, func(a, b Count) int { return int(a.Count) - int(b.Count) }).Count
	return 100 * c.Count / max(most, 1)
}
