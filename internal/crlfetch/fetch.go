// Package crlfetch keeps local copies of revocation lists that are published by HTTP, for
// a gate that watches them. It runs in a process of its own: the gate opens no connection
// for its lists.
//
// What a server sends replaces a copy only if crl.Replacement accepts it. Otherwise the
// last good copy stays, and the reason is counted.
package crlfetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/crl"
	"pgwicket/internal/statefile"
)

// Source is where lists come from and where their copies are.
type Source struct {
	URLs   []string
	Dir    string // crl_dir
	CAFile string // with the CAs whose lists are accepted; read for every download
}

// The defaults of Fetcher.
const (
	DefaultInterval = time.Hour
	DefaultTimeout  = 30 * time.Second
	DefaultMaxSize  = 64 << 20
)

// minRetry is the first pause after a failure. Each further one doubles it, up to the
// interval.
const minRetry = 30 * time.Second

// maxRedirects is for redirects within a host.
const maxRedirects = 5

// maxAtOnce bounds the memory: so many lists are in memory at a time.
const maxAtOnce = 2

// Fetcher downloads lists. Fill in the fields before its first use. Its methods may be
// called by many goroutines.
type Fetcher struct {
	Interval time.Duration // between two downloads; 0: DefaultInterval
	Timeout  time.Duration // for a whole download; 0: DefaultTimeout
	MaxSize  int64         // of a list in bytes; 0: DefaultMaxSize
	Log      *slog.Logger
	Report   func(Result) // called after every download; nil: nobody

	once  sync.Once
	slots chan struct{}
	http  *http.Client
	etags sync.Map // by the path of a copy that this process has made: two copies may have one URL

	replacing sync.Mutex // guards the copies: two sources may have one directory
}

// Result is the outcome of one download.
type Result struct {
	URL     string
	Reason  Reason // empty: the copy is the newest list
	Err     error  // what Reason is about
	Changed bool
	Next    time.Time // the next update of the copy; zero if that is not known
}

// Reason says why a download failed: a closed set.
type Reason string

// The reasons.
const (
	Unreachable Reason = "unreachable"
	TimedOut    Reason = "timeout"
	BadStatus   Reason = "status"
	Redirected  Reason = "redirect"
	TooLarge    Reason = "too_large"
	NotAList    Reason = "not_a_list"
	Foreign     Reason = "issuer"
	Older       Reason = "older"
	NotNow      Reason = "out_of_date"
	Local       Reason = "file"
)

// Reasons returns all reasons.
func Reasons() []Reason {
	return []Reason{Unreachable, TimedOut, BadStatus, Redirected, TooLarge, NotAList, Foreign, Older, NotNow, Local}
}

// failure is an error with its reason.
type failure struct {
	reason Reason
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failf(reason Reason, format string, args ...any) error {
	return &failure{reason, fmt.Errorf(format, args...)}
}

func (f *Fetcher) init() {
	f.once.Do(func() {
		f.slots = make(chan struct{}, maxAtOnce)
		f.Interval, f.Timeout = orDefault(f.Interval, DefaultInterval), orDefault(f.Timeout, DefaultTimeout)
		f.MaxSize = orDefault(f.MaxSize, DefaultMaxSize)
		if f.Log == nil {
			f.Log = slog.New(slog.DiscardHandler)
		}
		f.http = &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, DisableCompression: true, DisableKeepAlives: true,
				MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
			},
			CheckRedirect: checkRedirect,
		}
	})
}

func orDefault[T time.Duration | int64](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// checkRedirect follows a redirect within the host alone, and never from HTTPS to HTTP.
func checkRedirect(to *http.Request, via []*http.Request) error {
	from := via[0].URL
	switch {
	case to.URL.Host != from.Host:
		return failf(Redirected, "it redirects to another host, %s: name that URL instead, if it is meant", to.URL.Redacted())
	case to.URL.Scheme != from.Scheme && to.URL.Scheme != "https":
		return failf(Redirected, "it redirects from %s to %s", from.Scheme, to.URL.Scheme)
	case len(via) > maxRedirects:
		return failf(Redirected, "it redirects more than %d times", maxRedirects)
	}
	return nil
}

// Run downloads the lists of the sources until ctx ends.
func (f *Fetcher) Run(ctx context.Context, sources []Source) {
	f.init()
	var all sync.WaitGroup
	for _, s := range sources {
		for _, u := range s.URLs {
			all.Go(func() { f.keep(ctx, s, u) })
		}
	}
	all.Wait()
}

// keep downloads one list again and again.
func (f *Fetcher) keep(ctx context.Context, s Source, u string) {
	failures := 0
	for {
		if r := f.Fetch(ctx, s, u); r.Reason != "" {
			failures++
		} else {
			failures = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause(f.Interval, failures)):
		}
	}
}

// pause returns the time before the next download, after so many failures in a row. A
// quarter of it is random, so that machines that were started together do not ask
// together.
func pause(interval time.Duration, failures int) time.Duration {
	p := interval
	if failures > 0 && failures < 16 {
		p = min(interval, minRetry<<(failures-1))
	}
	return p*3/4 + rand.N(p/4+1) //nolint:gosec // nothing depends on it
}

// Once downloads every list once, and returns the number of failures.
func (f *Fetcher) Once(ctx context.Context, sources []Source) (failures int) {
	for _, s := range sources {
		for _, u := range s.URLs {
			if f.Fetch(ctx, s, u).Reason != "" {
				failures++
			}
		}
	}
	return failures
}

// Fetch downloads one list and replaces its copy, if it should be.
func (f *Fetcher) Fetch(ctx context.Context, s Source, u string) Result {
	f.init()
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return Result{URL: u, Reason: TimedOut, Err: ctx.Err()}
	}
	r := Result{URL: u}
	var err error
	if r.Changed, r.Next, err = f.update(ctx, s, u); err != nil {
		r.Reason, r.Err = reasonOf(err), err
	}
	if ctx.Err() != nil {
		return r // the program ends: nothing is wrong with the server
	}
	f.log(s, &r)
	if f.Report != nil {
		f.Report(r)
	}
	return r
}

func (f *Fetcher) log(s Source, r *Result) {
	path := filepath.Join(s.Dir, FileName(r.URL))
	switch {
	case r.Err != nil:
		f.Log.Warn("revocation list not fetched", "url", r.URL, "reason", string(r.Reason), "error", r.Err.Error(), "file", path)
	case r.Changed:
		f.Log.Info("revocation list fetched", "url", r.URL, "file", path, "next_update", r.Next)
	default:
		f.Log.Debug("revocation list unchanged", "url", r.URL, "file", path)
	}
}

func reasonOf(err error) Reason {
	var known *failure
	var timeout net.Error
	switch {
	case errors.As(err, &known):
		return known.reason
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return TimedOut
	case errors.Is(err, crl.ErrForeign):
		return Foreign
	case errors.Is(err, crl.ErrOlder):
		return Older
	case errors.Is(err, crl.ErrNotNow):
		return NotNow
	case errors.Is(err, crl.ErrNoList):
		return NotAList
	}
	return Unreachable
}

// update downloads and replaces.
func (f *Fetcher) update(ctx context.Context, s Source, u string) (changed bool, next time.Time, err error) {
	path := filepath.Join(s.Dir, FileName(u))
	cas, err := readCAs(s.CAFile)
	if err != nil {
		return false, next, &failure{Local, err}
	}
	known, err := f.conditionsOf(path, cas)
	if err != nil {
		return false, next, &failure{Local, err}
	}
	answer, err := f.download(ctx, u, known)
	if err != nil {
		return false, next, err
	}
	return f.replace(path, answer, cas)
}

// replace judges an answer by the copy that is there now: the download may have taken long, and
// another one may have brought a newer list meanwhile.
func (f *Fetcher) replace(path string, answer answer, cas []*certs.Certificate) (changed bool, next time.Time, err error) {
	f.replacing.Lock()
	defer f.replacing.Unlock()
	old, modified, err := f.copyOf(path)
	if err != nil {
		return false, next, &failure{Local, err}
	}
	data := answer.data
	unchanged := data == nil
	if unchanged {
		data = old
	}
	if next, err = crl.Replacement(data, old, cas, time.Now()); err != nil || unchanged {
		return false, next, err
	}
	if changed = string(data) != string(old); changed {
		// The gate has another account, and lists are public.
		if err := statefile.Replace(path, data, 0o644, nil); err != nil {
			return false, next, &failure{Local, err}
		}
	} else if answer.modified.Equal(modified) {
		return false, next, nil
	}
	// The time of the copy is the server's, for the next conditional request. Without one it
	// is 1970: a time of this machine could hide a list that a server with another clock has
	// made later.
	if err := os.Chtimes(path, answer.modified, answer.modified); err != nil {
		return changed, next, &failure{Local, err}
	}
	f.etags.Store(path, tag{answer.etag, sha256.Sum256(data)})
	return changed, next, nil
}

// tag is the ETag of a list.
type tag struct {
	etag string
	of   [sha256.Size]byte // the copy, which somebody else may replace
}

// conditions are what a server is told of the copy, so that it sends only another list. The zero
// value has it send its list in any case.
type conditions struct {
	modified time.Time
	etag     string
}

// conditionsOf reads the copy. One that cannot be used is replaced: its time may be of the moment at
// which it was damaged, or put there by hand, and would hide the server's list.
func (f *Fetcher) conditionsOf(path string, cas []*certs.Certificate) (known conditions, err error) {
	data, modified, err := f.copyOf(path)
	if err != nil || modified.Unix() <= 0 {
		return known, err
	}
	if _, err := crl.Replacement(data, nil, cas, time.Now()); err != nil {
		return known, nil //nolint:nilerr // the download goes on without conditions
	}
	known.modified = modified
	if last, ok := f.etags.Load(path); ok {
		if last, ok := last.(tag); ok && last.of == sha256.Sum256(data) {
			known.etag = last.etag
		}
	}
	return known, nil
}

// copyOf reads a copy and its time, which is the server's. There may be none.
func (f *Fetcher) copyOf(path string) (data []byte, modified time.Time, err error) {
	file, err := statefile.Open(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, modified, nil
	}
	if err != nil {
		return nil, modified, err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, modified, err
	}
	data, err = io.ReadAll(io.LimitReader(file, f.MaxSize))
	return data, st.ModTime(), err
}

func readCAs(path string) ([]*certs.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	bundle, err := certs.ReadBundle(path, data)
	return bundle.Certificates, err
}

// answer is what a server has sent. The data is nil if it is what the copy holds.
type answer struct {
	data     []byte
	etag     string
	modified time.Time
}

// download asks for a list that is newer than the copy.
func (f *Fetcher) download(ctx context.Context, u string, known conditions) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		return a, err
	}
	request.Header.Set("User-Agent", "pgwicket-fetch")
	conditional := !known.modified.IsZero()
	if conditional {
		request.Header.Set("If-Modified-Since", known.modified.UTC().Format(http.TimeFormat))
		if known.etag != "" {
			request.Header.Set("If-None-Match", known.etag)
		}
	}
	response, err := f.http.Do(request)
	if err != nil {
		return a, withoutURL(err)
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotModified && conditional:
		return a, nil
	case response.StatusCode != http.StatusOK:
		return a, failf(BadStatus, "it answers with status %d", response.StatusCode)
	case response.ContentLength > f.MaxSize:
		return a, failf(TooLarge, "it has %d bytes, and at most %d are accepted", response.ContentLength, f.MaxSize)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, f.MaxSize+1))
	if err != nil {
		return a, err
	}
	if int64(len(data)) > f.MaxSize {
		return a, failf(TooLarge, "it has more than %d bytes", f.MaxSize)
	}
	a = answer{data, usableTag(response.Header.Get("ETag")), time.Unix(0, 0)}
	at, err := http.ParseTime(response.Header.Get("Last-Modified"))
	if err != nil {
		return a, nil //nolint:nilerr // it has none
	}
	// A list that changes again in the same second keeps its time, and its ETag where that is made of the time, as
	// nginx does (RFC 9110 section 8.8.2.2). By the server's own clock, the second must be over.
	if sent, err := http.ParseTime(response.Header.Get("Date")); err != nil || sent.Sub(at) < time.Second {
		a.etag = ""
	} else if at.Before(time.Now()) {
		a.modified = at
	}
	return a, nil
}

// usableTag returns an ETag that can be sent back, and else none (RFC 9110 section 8.8.3): with one
// that is longer than servers accept, every further download would fail.
func usableTag(etag string) string {
	const longest = 256
	if len(etag) > longest || strings.ContainsFunc(etag, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return ""
	}
	return etag
}

// withoutURL takes the URL out of an error, which the log has already.
func withoutURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}
