package gate

import (
	"errors"
	"net/http"

	"pgwicket/internal/filewatch"
	"pgwicket/internal/status"
	"pgwicket/internal/upgrade"
)

// reloadBySignal reloads both processes of an upgrade.
func (g *Gate) reloadBySignal() {
	if g.shutsDown() {
		g.Log.Info("no reload while shutting down")
		return
	}
	if trail := g.trail.Load(); trail != nil {
		trail.Reopen()
	}
	g.reload(bySignal, filewatch.Take(g.files(g.Path)))
	g.reloadNext(true)
	go func() { _ = g.forward(http.MethodPost, ReloadPath, nil, nil) }()
}

// shutsDown reports whether this process ends as a gate: not if it only finishes sessions after an upgrade, which must be
// judged by what is loaded until their end.
func (g *Gate) shutsDown() bool { return g.stopping.Load() && !g.admin.upgrade.given.Load() }

// reloadRequest is a reload by the admin socket.
type reloadRequest struct {
	forwarded bool // by the process after this one
	answer    chan<- reloadAnswer
}

// reloadAnswer has a result, or why there is none.
type reloadAnswer struct {
	result *status.Reload
	err    error
}

var (
	errShutsDown = errors.New("the gate is shutting down and does not reload")
	errElsewhere = errors.New(upgrade.Elsewhere)
)

// reloadByCommand decides here, and not where the request was read, whether this process is still the one to ask: until a
// new one has taken over, reloadNext has that one reload, too.
func (g *Gate) reloadByCommand(forwarded bool) reloadAnswer {
	switch {
	case g.shutsDown():
		return reloadAnswer{err: errShutsDown}
	case g.admin.upgrade.given.Load() && !forwarded:
		return reloadAnswer{err: errElsewhere}
	}
	result := g.reload(byCommand, filewatch.Take(g.files(g.Path)))
	g.reloadNext(false)
	return reloadAnswer{result: result}
}
