package gate

import (
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// forwardTimeout is how long the process before may take for a command.
const forwardTimeout = 10 * time.Second

// forward has the process before this one do what this one was asked for, as long as it has sessions. Its answer
// is in v then; nil: nobody needs it.
func (g *Gate) forward(method, path string, query url.Values, v any) {
	before := g.admin.upgrade.before.Load()
	if before == nil {
		return
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	within := forwardTimeout
	if path == ReloadPath {
		within = MaxReload
	}
	answer, err := before.Ask(method, path, within)
	if err == nil && v != nil {
		err = json.Unmarshal(answer, v)
	}
	if err != nil && g.admin.upgrade.before.Load() != nil { // else it has just ended
		g.Log.Error("the process before has not done what was asked", "pid", before.PID, "path", path, "error", err.Error())
	}
}

// sessionsBefore returns the open sessions of the process before that a query matches.
func (g *Gate) sessionsBefore(query url.Values) (all []OpenSession) {
	g.forward(http.MethodGet, SessionsPath, query, &all)
	return all
}

// terminateBefore ends the sessions of the process before that a query matches, and returns how many.
func (g *Gate) terminateBefore(query url.Values) int {
	var t Terminated
	query.Set("yes", "1") // it was asked here
	g.forward(http.MethodPost, TerminatePath, query, &t)
	return t.Terminated
}
