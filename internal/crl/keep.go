package crl

import (
	"bytes"
	"slices"
	"time"
)

// keepOlder keeps lists of the previous set in place of what cannot be used now: files that cannot be read, lists that
// cannot be applied, and lists that begin in the future.
func (b *Builder) keepOlder(previous *Set) {
	var kept []*List
	for _, old := range previous.lists {
		i := slices.IndexFunc(b.set.lists, func(l *List) bool { return l.replaces(old) && !l.thisUpdate.After(b.Now) })
		if i >= 0 || !old.until.IsZero() && !b.Now.Before(old.until) {
			continue
		}
		again := *old // a copy, since sessions are using old
		again.kept, again.until = true, time.Time{}
		future := slices.IndexFunc(b.set.lists, func(l *List) bool { return l.replaces(old) && l.thisUpdate.After(b.Now) })
		switch {
		case future >= 0 && b.set.lists[future].thisUpdate.Equal(old.thisUpdate):
			continue // the same list
		case future >= 0:
			again.until = b.set.lists[future].thisUpdate
			b.warnf(old.source.option, "%s, so the list from before stays in use until then", b.set.lists[future].staleness(b.Now))
		case b.lost[old.source.file], len(b.set.unusable[old.issuer.Canonical()]) > 0:
		case b.staysThoughGone(old):
			b.warnf(old.source.option, "%s is gone, and the CA has no other list that covers the same certificates, so it stays in use: "+
				"run pgwicket reload or send SIGHUP to drop it", old)
		default:
			continue
		}
		kept = append(kept, &again)
	}
	for _, list := range kept {
		b.set.add(list)
	}
}

// staysThoughGone reports whether a list stays that has no file any more: see Builder.KeepGone. The list of a CA of the same
// name, or of another partition, is no other list.
func (b *Builder) staysThoughGone(old *List) bool {
	return b.KeepGone && b.Policy.AllowMissing &&
		!slices.ContainsFunc(b.set.lists, func(l *List) bool { return l.scope.all() && l.sameCA(old) })
}

// keepNewer keeps the newest list of the previous set where the newest one now is older. The older one may be a copy from
// a backup, from a mirror that is behind, or the work of somebody who wants to undo a revocation; it must not undo one.
// Both lists are used, so that what either revokes is revoked, and the kept one goes on to the next reload.
func (b *Builder) keepNewer(previous *Set) {
	var kept []*List
	for _, old := range previous.lists {
		var latest *List
		for _, list := range b.set.lists {
			if list.replaces(old) && (latest == nil || list.compare(latest) > 0) {
				latest = list
			}
		}
		switch {
		case previous.hasNewer(old):
			continue
		case latest == nil:
			if latest = b.newestEarlier(old); latest == nil {
				continue
			}
			b.warnf(old.source.option, "%s is gone, and the CA's other lists are from before it, so it is kept in use with them: "+
				"install the CA's newest lists, or restart pgwicket to drop the kept one", old)
		case latest.compare(old) >= 0:
			continue
		default:
			b.warnf(latest.source.option, "%s goes back from %s to %s, so the newer list from before the reload is kept in use with it: "+
				"install the CA's newest list, or restart pgwicket to drop the kept one", latest, old.age(latest), latest.age(old))
		}
		again := *old // a copy, since sessions are using old
		again.kept, again.signer = true, latest.signer
		kept = append(kept, &again)
	}
	for _, list := range kept {
		b.set.add(list)
	}
}

// newestEarlier returns the newest list of old's CA, whatever it covers, if all that the CA has are from before old; nil also
// if it has none: then the operator has removed them. A CA that begins to divide its lists, or ceases to, does so with a list
// that is newer.
func (b *Builder) newestEarlier(old *List) (newest *List) {
	for _, l := range b.set.lists {
		if !l.sameCA(old) {
			continue
		}
		if !l.thisUpdate.Before(old.thisUpdate) {
			return nil
		}
		newest = newer(newest, l)
	}
	return newest
}

// keepRevoking keeps the deltas of the previous set, and the lists that cannot be used but revoke, while nothing newer
// replaces them: neither a damaged file nor an older list undoes a revocation.
func (b *Builder) keepRevoking(previous *Set) {
	var kept []*List
	for _, old := range previous.allOnlyRevoke() {
		lost := b.lost[old.source.file]
		if b.overrules(old, lost) {
			continue
		}
		older := slices.ContainsFunc(b.set.lists, func(l *List) bool { return l.replaces(old) }) || b.newestEarlier(old) != nil
		switch {
		case lost, len(b.set.unusable[old.issuer.Canonical()]) > 0:
		case older:
			b.warnf(old.source.option, "%s is gone, and the CA has no newer list, so what it revokes stays revoked: "+
				"install the CA's newest list, or restart pgwicket to drop it", old)
		case b.staysThoughGone(old):
			b.warnf(old.source.option, "%s is gone, and the CA has no other list that covers the same certificates, so it stays in use: "+
				"run pgwicket reload or send SIGHUP to drop it", old)
		default:
			continue
		}
		again := *old // a copy, since sessions are using old
		again.kept, again.signer = true, nil
		b.setSigner(&again)
		if again.delta {
			again.problem = ""
			if !slices.ContainsFunc(b.set.lists, again.sameCA) {
				again.problem = errDelta.Error()
			}
		}
		kept = append(kept, &again)
	}
	for _, list := range kept {
		if list.problem == "" {
			b.set.addOnlyRevoke(list)
		} else {
			b.set.add(list)
		}
	}
}

// overrules reports whether the set has what replaces a list that can do no more than revoke: itself, a newer one of its
// kind, or a newer list that can be relied on.
func (b *Builder) overrules(old *List, lost bool) bool {
	return slices.ContainsFunc(b.set.lists, func(l *List) bool {
		later := l.thisUpdate.Compare(old.thisUpdate)
		return l.replaces(old) && !l.thisUpdate.After(b.Now) && (later > 0 || later == 0 && !lost)
	}) || slices.ContainsFunc(slices.Concat(b.set.allOnlyRevoke(), b.deltas), func(l *List) bool {
		return bytes.Equal(l.tbs, old.tbs) || l.delta == old.delta && l.replaces(old) && l.compare(old) >= 0
	})
}
