package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"pgwicket/internal/status"
	"pgwicket/internal/upgrade"
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
	if err == nil || errors.Is(err, upgrade.ErrEnded) {
		return nil
	}
	g.Log.Error("the process before has not done what was asked", "pid", before.PID, "path", path, "error", err.Error())
	return fmt.Errorf("process %d, which finishes sessions after an upgrade, has not done it: %w", before.PID, err)
}

// isForwarded reports whether the process after this one has sent a request.
func isForwarded(ctx context.Context) bool {
	_, forwarded := upgrade.ForwardedBy(ctx)
	return forwarded
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
	query.Set(upgrade.ByParameter, by)
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
