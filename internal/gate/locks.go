package gate

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"pgwicket/config"
	"pgwicket/internal/lock"
	"pgwicket/internal/phrase"
	"pgwicket/internal/status"
	"pgwicket/proxy"
)

// The paths of the locks, which only the admin socket serves. LockPath takes a filter
// (lock.Conditions), reason, yes and one of for, until and forever in its query, and
// UnlockPath takes id. From the process after this one LockPath takes id, too, both take by, and it is no error if
// there is no lock to end.
const (
	LocksPath  = "/locks.json"
	LockPath   = "/lock"
	UnlockPath = "/unlock"
)

// Locked is the answer at LockPath.
type Locked struct {
	Lock       lock.Lock `json:"lock"`
	Sessions   int       `json:"sessions"`   // that it ends
	Persistent bool      `json:"persistent"` // it survives a restart
}

// locks are those of a gate, and the policy that they are part of.
type locks struct {
	table *lock.Table

	mu     sync.Mutex
	policy *proxy.Policy // as last loaded; its own Locks do not count

	// Only the goroutine of Gate.wait uses the rest.
	held    map[string]lock.Lock // at the last look
	problem string               // of the file, as last logged
}

// openLocks reads the locks and puts them into force. Sessions must not have begun.
func (g *Gate) openLocks() error {
	table, err := lock.Open(g.started.StateDir)
	if err == nil {
		err = table.CheckWritable()
	}
	if err != nil {
		return err
	}
	g.locks.table = table
	g.setPolicy(g.inForce)
	g.followLocks()
	if n := len(g.locks.held); n > 0 {
		g.Log.Info("locks in force", "locks", n)
	}
	return nil
}

// setPolicy puts the policy of a configuration into force, with the locks, and with the members of the
// roles that its rules name.
func (g *Gate) setPolicy(cfg *config.Config) {
	keepers := g.keepGroups(cfg)
	g.locks.mu.Lock()
	g.locks.policy, g.groups.keepers = cfg.Policy, keepers
	g.putPolicy(false)
	g.locks.mu.Unlock()
	g.Metrics.ForgetGroups()
	g.followGroups()
}

// setLocks puts the locks of the table into force.
func (g *Gate) setLocks() {
	g.locks.mu.Lock()
	defer g.locks.mu.Unlock()
	g.putPolicy(false)
}

// putPolicy gives the server the policy with the locks and the members of roles. renewed says that
// nothing else has changed than until when these are known. The caller holds mu.
func (g *Gate) putPolicy(renewed bool) {
	policy := *g.locks.policy
	policy.Locks, policy.Groups = g.locks.table.Set(), g.knownGroups()
	if renewed {
		g.server.RenewPolicy(&policy)
		return
	}
	g.server.SetPolicy(&policy)
	g.Metrics.Locks(len(policy.Locks.At(g.Now())))
}

// followLocks takes over what another gate has written into the file, and logs the locks
// that have ended.
func (g *Gate) followLocks() {
	set, err := g.locks.table.Refresh()
	switch {
	case err != nil && err.Error() != g.locks.problem:
		g.Log.Error("the file of the locks was changed, damaged or removed; the locks in force stay", "error", err.Error())
		g.locks.problem = err.Error()
	case err == nil:
		g.locks.problem = ""
	}
	if set != nil {
		g.Log.Info("locks read again, because another process has changed them", "locks", set.Len())
		g.setLocks()
	}
	now := g.Now()
	held := make(map[string]lock.Lock)
	for _, l := range g.locks.table.Set().At(now) {
		held[l.ID] = l
	}
	for id, l := range g.locks.held {
		if _, there := held[id]; !there && !l.HoldsAt(now) {
			g.audit("lock ended", lockAttrs(l, l.By)...)
			g.Log.Info("lock has ended", "lock", id, "filter", l.String(), "reason", l.Reason)
		}
	}
	g.locks.held = held
	g.Metrics.Locks(len(held))
}

func (g *Gate) serveLocks(w http.ResponseWriter, _ *http.Request) {
	held := g.locks.table.Set().At(g.Now())
	if held == nil {
		held = []lock.Lock{} // JSON shows none as [], not as null
	}
	status.WriteJSON(w, held)
}

func (g *Gate) serveLock(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	l, err := parseLock(query, g.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	matched, open := g.matching(&l.Filter)
	if query.Get("yes") == "" {
		doubt := doubtful(&l.Filter, matched, open, "lock")
		if !g.locks.table.Persistent() {
			doubt = join(doubt, "there is no state_dir, so the lock would end with this process")
		}
		if doubt != "" {
			http.Error(w, doubt+"; nothing is locked yet: repeat the command with --yes", http.StatusConflict)
			return
		}
	}
	here := !isForwarded(r.Context())
	if here {
		l.ID = ""
	}
	l.By = operator(r.Context())
	l, _, err = g.locks.table.Add(l, g.Now())
	g.setLocks() // also those of another process, which Add has read
	if err != nil && !errors.Is(err, lock.ErrNotSynced) {
		g.Log.Error("cannot lock", "filter", l.String(), "by", l.By, "error", err.Error())
		http.Error(w, "cannot lock: "+err.Error()+"; nothing has changed", http.StatusInternalServerError)
		return
	}
	query.Set("yes", "1")
	query.Set("id", l.ID)
	query.Set(byParameter, l.By)
	forwarded := g.forward(http.MethodPost, LockPath, query, nil)
	g.Log.Warn("locked", "lock", l.ID, "filter", l.String(), "until", untilText(l), "reason", l.Reason, "by", l.By, "sessions", matched)
	if here {
		g.audit("locked", append(lockAttrs(l, l.By), slog.Int("sessions", matched))...)
	}
	if err != nil {
		g.refuseUnsynced(w, l, err)
		return
	}
	if forwarded != nil {
		refuseForwarded(w, fmt.Sprintf("lock %s is in force", l.ID), forwarded)
		return
	}
	status.WriteJSON(w, Locked{l, matched, g.locks.table.Persistent()})
}

func (g *Gate) serveUnlock(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	l, _, err := g.locks.table.Remove(query.Get("id"))
	g.setLocks() // also those of another process, which Remove has read
	switch {
	case errors.Is(err, lock.ErrNoLock) && isForwarded(r.Context()): // the process after this one had it, or another
		status.WriteJSON(w, l)
		return
	case errors.Is(err, lock.ErrNoLock):
		http.Error(w, err.Error(), http.StatusConflict)
		return
	case err != nil && !errors.Is(err, lock.ErrNotSynced):
		g.Log.Error("cannot unlock", "lock", query.Get("id"), "by", operator(r.Context()), "error", err.Error())
		http.Error(w, "cannot unlock: "+err.Error()+"; the lock is still in force", http.StatusInternalServerError)
		return
	}
	if !isForwarded(r.Context()) { // else the process after this one has it in the trail
		g.audit("unlocked", lockAttrs(l, operator(r.Context()))...)
	}
	query.Set(byParameter, operator(r.Context()))
	forwarded := g.forward(http.MethodPost, UnlockPath, query, nil)
	g.Log.Warn("unlocked", "lock", l.ID, "filter", l.String(), "reason", l.Reason, "by", operator(r.Context()))
	if err != nil {
		g.refuseUnsynced(w, l, err)
		return
	}
	if forwarded != nil {
		refuseForwarded(w, fmt.Sprintf("lock %s has ended", l.ID), forwarded)
		return
	}
	status.WriteJSON(w, l)
}

// refuseUnsynced answers a command whose change holds, but perhaps not for good.
func (g *Gate) refuseUnsynced(w http.ResponseWriter, l lock.Lock, err error) {
	g.Log.Error("cannot sync the locks", "lock", l.ID, "error", err.Error())
	http.Error(w, fmt.Sprintf("lock %s: %v", l.ID, err), http.StatusInternalServerError)
}

// parseLock reads the query of LockPath.
func parseLock(query url.Values, now time.Time) (l lock.Lock, err error) {
	if l.Filter, err = lock.ParseFilter(query); err != nil {
		return l, err
	}
	if l.IsZero() {
		return l, errors.New("there is no condition; name what to lock")
	}
	l.Reason, l.ID = query.Get("reason"), query.Get("id") // a process that has it already names it
	ends := 0
	for _, name := range []string{"for", "until", "forever"} {
		if query.Has(name) {
			ends++
		}
	}
	if ends != 1 {
		return l, errors.New("name one end: for, until or forever")
	}
	switch {
	case query.Has("for"):
		d, err := time.ParseDuration(query.Get("for"))
		if err != nil || d < time.Second {
			return l, fmt.Errorf("for: %q is not a duration of a second or more; write it with a unit, like 30m or 2h", query.Get("for"))
		}
		until := now.Add(d)
		l.Until = &until
	case query.Has("until"):
		until, err := time.Parse(time.RFC3339, query.Get("until"))
		if err != nil {
			return l, fmt.Errorf("until: %q is not a time; write it like 2027-01-31T12:00:00Z", query.Get("until"))
		}
		l.Until = &until
	}
	return l, nil
}

// matching returns how many of the open sessions a filter matches, with those of the process before.
func (g *Gate) matching(f *lock.Filter) (matched, open int) {
	all := g.server.Snapshot()
	for _, s := range all {
		if f.Matches(s.Request) {
			matched++
		}
	}
	if g.admin.upgrade.before.Load() == nil {
		return matched, len(all)
	}
	return matched + len(g.sessionsBefore(f.Values())), len(all) + len(g.sessionsBefore(nil))
}

// doubtful returns what makes it likely that a filter is a mistake; empty: nothing.
func doubtful(f *lock.Filter, matched, open int, verb string) string {
	switch {
	case f.IsEverybody():
		return fmt.Sprintf("%s matches every client", f)
	case matched == open && open > 1:
		return fmt.Sprintf("%s matches all %d open sessions", f, open)
	case matched == 0 && verb == "lock":
		return fmt.Sprintf("%s matches none of the %s now", f, phrase.Count(open, "open session"))
	}
	return ""
}

func join(texts ...string) (joined string) {
	for _, text := range texts {
		if joined != "" && text != "" {
			joined += ", and "
		}
		joined += text
	}
	return joined
}

// untilText returns the end of a lock for the log.
func untilText(l lock.Lock) string {
	if l.Until == nil {
		return "forever"
	}
	return l.Until.UTC().Format(time.RFC3339)
}

// maxShown is how many locks the status page has.
const maxShown = 100

// showLocks returns the newest locks in force for the status page, and the number of all.
func (g *Gate) showLocks(clients bool) (all []status.Lock, total int) {
	if g.locks.table == nil {
		return nil, 0 // the gate has not started yet
	}
	held := g.locks.table.Set().At(g.Now())
	for _, l := range slices.Backward(held[max(0, len(held)-maxShown):]) {
		one := status.Lock{ID: l.ID, By: l.By, Created: l.Created, Until: l.Until}
		if clients {
			one.Filter, one.Reason = l.String(), l.Reason
		}
		all = append(all, one)
	}
	return all, len(held)
}
