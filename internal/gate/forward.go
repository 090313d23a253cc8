package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"pgwicket/internal/status"
)

// forwardTimeout is how long the process before may take for a command: half of what the client of this one waits
// (adminclient.Timeout).
const forwardTimeout = 5 * time.Second

// forward has the process before this one do what this one was asked for, as long as it has sessions. Its answer
// is in v then; nil: nobody needs it. The error, which the log has, names that process.
func (g *Gate) forward(method, path string, query url.Values, v any) error {
	before := g.admin.upgrade.before.Load()
	if before == nil {
		return nil
	}
	target := path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	within := forwardTimeout
	if path == ReloadPath {
		within = MaxReload
	}
	answer, err := before.Ask(method, target, within)
	if err == nil && v != nil {
		err = json.Unmarshal(answer, v)
	}
	if err == nil || g.admin.upgrade.before.Load() == nil { // it has just ended
		return nil
	}
	g.Log.Error("the process before has not done what was asked", "pid", before.PID, "path", path, "error", err.Error())
	return fmt.Errorf("process %d, which finishes sessions after an upgrade, has not done it: %w", before.PID, err)
}

type forwardedKey struct{}

// forwardedHandler serves what the process after this one forwards. It has asked for the account that sends a command.
func forwardedHandler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), forwardedKey{}, true)
		if by := r.URL.Query().Get(byParameter); by != "" {
			ctx = context.WithValue(ctx, operatorKey{}, by)
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// byParameter is who has sent a command that is forwarded.
const byParameter = "by"

// isForwarded reports whether the process after this one has sent a request. It records the command in the audit trail.
func isForwarded(ctx context.Context) bool { return ctx.Value(forwardedKey{}) != nil }

// elsewhere is the answer to a command that has come to this process and belongs to the one that takes over.
const elsewhere = "another process of the gate is taking over; nothing has been done: repeat the command"

// command serves a command that changes what a new process gets. From the moment when that begins, the connections that
// this process has accepted before get an error: the new process would know nothing of the command.
func (g *Gate) command(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if isForwarded(r.Context()) {
			serve(w, r)
			return
		}
		u := &g.admin.upgrade
		u.commands.RLock()
		defer u.commands.RUnlock()
		if u.paused {
			http.Error(w, elsewhere, http.StatusServiceUnavailable)
			return
		}
		serve(w, r)
	}
}

// pauseCommands waits for the commands that are carried out, and has those after them get an error, or not any more.
func (g *Gate) pauseCommands(on bool) {
	u := &g.admin.upgrade
	u.commands.Lock()
	u.paused = on
	u.commands.Unlock()
}

// refuseForwarded answers a command that was carried out here alone. done says what has happened.
func refuseForwarded(w http.ResponseWriter, done string, err error) {
	http.Error(w, fmt.Sprintf("%s, but %v; repeat the command, or end that process", done, err), http.StatusBadGateway)
}

// sessionsBefore returns the open sessions of the process before that a query matches.
func (g *Gate) sessionsBefore(query url.Values) (all []OpenSession) {
	_ = g.forward(http.MethodGet, SessionsPath, query, &all) // the log has the error
	return all
}

// terminateBefore ends the sessions of the process before that a query matches, and returns how many.
func (g *Gate) terminateBefore(query url.Values, by string) (int, error) {
	var t Terminated
	query.Set("yes", "1") // it was asked here
	query.Set(byParameter, by)
	err := g.forward(http.MethodPost, TerminatePath, query, &t)
	return t.Terminated, err
}

// reloadBefore has the process before reload, and adds to the result why it has not.
func (g *Gate) reloadBefore(result *status.Reload) *status.Reload {
	var before status.Reload
	err := g.forward(http.MethodPost, ReloadPath, nil, &before)
	text := ""
	switch {
	case err != nil:
		text = err.Error()
	case !before.At.IsZero() && !before.Successful:
		text = "a process that finishes sessions after an upgrade has not reloaded; the log has the reason"
	default:
		return result
	}
	both := *result
	both.Problems = append(slices.Clone(both.Problems), status.Problem{File: g.source(), Text: text, Warning: true})
	return &both
}
