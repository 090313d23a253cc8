package pgwire

// requests follows what both sides have sent, as the loop of PostgresMain (postgres.c)
// and CopyGetData (copyfromparse.c) would take it:
//
//   - The backend takes the client's messages in their order. ReadyForQuery answers a
//     Query, a FunctionCall and a Sync.
//   - After an error in the extended protocol it skips everything up to the next
//     Sync, a Query too.
//   - While it reads the data of a COPY it ignores Sync and Flush. Outside of one it
//     ignores CopyData, CopyDone and CopyFail.
//
// How far the backend has come is known from its answers. Each message but Sync and
// Flush has one that stands before the next ReadyForQuery, so a ReadyForQuery with
// nothing before it answers a Sync that ended nothing. What the backend had taken when
// a COPY failed cannot be known; kindMaybe stands for a Sync that it may have ignored.
type requests struct {
	queue    pending
	active   bool // since the last ReadyForQuery the backend has begun something that makes it active
	open     bool // extended-protocol messages since then have been answered
	skip     bool // they have failed; never in doubt, where the queue may be behind
	answered bool // something has been answered since then
	copyIn   bool // it reads the data of a COPY
	copyBoth bool // it streams, as a walsender does
	flushed  bool // the last extended-protocol message was followed by a Flush
	doubt    bool // the queue may hold what the backend has skipped
}

// sent follows a complete message of the client.
func (r *requests) sent(kind byte) {
	switch kind {
	case msgQuery, msgFunctionCall:
		r.queue.push(kindQuery)
	case msgSync:
		r.sync()
	case msgParse, msgBind, msgExecute:
		r.queue.push(kindExtended)
		r.flushed = false
	case msgDescribe, msgClose:
		if r.queue.is(r.queue.len()-1, kindExtended) {
			r.queue.push(kindExtended)
		} else {
			r.queue.push(kindPassive)
		}
		r.flushed = false
	case msgFlush:
		r.flushed = true
	case msgCopyDone, msgCopyFail:
		if r.copyIn || r.queue.len() > 0 {
			r.queue.push(kindCopyEnd)
		}
	}
}

// sync makes a batch of the messages that a Sync ends, unless it is one that a COPY
// ignores.
func (r *requests) sync() {
	q := &r.queue
	end := q.len()
	begin := end
	for !r.copyIn && (q.is(begin-1, kindExtended) || q.is(begin-1, kindPassive)) {
		begin--
	}
	if begin == end {
		q.push(kindSync)
		return
	}
	q.remove(begin, end)
	q.push(kindBatch)
}

// received follows a complete message of the backend but ReadyForQuery; e is what an
// ErrorResponse says.
func (r *requests) received(kind byte, e *report) {
	switch kind {
	case msgNotice, msgNotification, msgParameterStatus:
		return // they may come at any time
	}
	r.answered = true
	r.dropTaken()
	switch kind {
	case msgErrorResponse:
		r.failed(e)
	case msgParseComplete, msgBindComplete, msgPortalSuspended:
		r.active = true
		r.completed()
	case msgCommandComplete:
		r.active = true
		r.copied()
		r.completed()
	case msgCloseComplete, msgRowDescription, msgNoData, msgEmptyQuery:
		r.completed()
	case msgCopyInResponse:
		r.active, r.copyIn = true, true
		r.reopen()
	case msgCopyBothResponse:
		r.active, r.copyBoth = true, true
	case msgParameterDescription: // the answer to the Describe follows
	default:
		r.active = true
	}
}

// dropTaken drops what the backend must have taken without an answer, or with a
// ReadyForQuery alone, before the message that it answers now.
func (r *requests) dropTaken() {
	for !r.copyIn {
		switch r.queue.head() {
		case kindSync, kindMaybe:
			if r.open {
				return
			}
		case kindCopyEnd:
		default:
			return
		}
		r.queue.remove(0, 1)
	}
}

// completed follows the last answer to an extended-protocol message, or one to a
// Query.
func (r *requests) completed() {
	switch r.queue.head() {
	case kindExtended, kindPassive:
		r.queue.take(0)
		r.open = true
	}
}

// reopen takes the Sync from a batch whose Execute has begun a COPY, which ignores
// it.
func (r *requests) reopen() {
	if !r.queue.is(0, kindBatch) {
		return
	}
	r.queue.take(0)
	r.queue.insert(0, newRun(kindSync, 1))
	r.queue.insert(0, newRun(kindExtended, 1))
}

// copyEnd returns the index of the CopyDone or CopyFail that ends the COPY which the
// backend reads, and whether it has been sent.
func (r *requests) copyEnd() (i int, ok bool) {
	for i = 1; r.queue.is(i, kindSync) || r.queue.is(i, kindMaybe); i++ {
	}
	return i, r.queue.is(i, kindCopyEnd)
}

// copied follows the CommandComplete of a COPY: it has ignored each Sync before its
// CopyDone.
func (r *requests) copied() {
	if r.copyIn {
		if end, ok := r.copyEnd(); ok {
			r.queue.take(end)
			r.queue.remove(1, end)
		}
	}
	r.copyIn, r.copyBoth = false, false
}

// failed follows an ErrorResponse.
func (r *requests) failed(e *report) {
	q := &r.queue
	if r.copyIn {
		end, ok := r.copyEnd()
		for i := 1; i < end; i++ {
			q.set(i, newRun(kindMaybe, q.at(i).n()))
		}
		// PostgreSQL 13 and older drop a message that has no place in the data.
		r.doubt = r.doubt || !ok && end < q.len() && e.is(SQLStateProtocolViolation)
		r.copyIn = false
	}
	r.copyBoth = false
	switch q.head() {
	case kindPassive:
		r.skip, r.open = !r.doubt, true
		q.remove(0, 1)
	case kindExtended:
		// exec_bind_message and exec_execute_message look for the statement
		// and the portal before they report any activity.
		r.active = r.active || !e.is(sqlStateUndefinedStatement) && !e.is(sqlStateUndefinedCursor)
		r.skip, r.open = !r.doubt, true
		q.remove(0, 1)
	}
}

// ready follows a ReadyForQuery: it answers the first message that may have one.
func (r *requests) ready() {
	q := &r.queue
	i := r.answers()
	if i == q.len() && !r.answered { // not of PostgreSQL, which answers every Query
		r.answered = true
		i = r.answers()
	}
	maybe := false
	if i < q.len() {
		maybe = r.answered && q.at(i).kind() == kindMaybe
		q.take(i)
	}
	q.remove(0, i)
	r.active, r.open, r.skip, r.answered, r.copyIn, r.copyBoth = false, false, false, false, false, false
	r.doubt = r.doubt && r.requested() || maybe && r.next() != kindSync
}

// requested reports whether the queue holds more than Sync and CopyDone.
func (r *requests) requested() bool {
	for i := range r.queue.len() {
		switch r.queue.at(i).kind() {
		case kindQuery, kindBatch, kindExtended, kindPassive:
			return true
		}
	}
	return false
}

// answers returns the index of the first run that a ReadyForQuery may answer, or the
// length of the queue.
func (r *requests) answers() int {
	for i := range r.queue.len() {
		switch r.queue.at(i).kind() {
		case kindSync, kindMaybe:
			return i
		case kindBatch:
			if r.answered {
				return i
			}
		case kindQuery:
			if r.answered && !r.skip {
				return i
			}
		}
	}
	return r.queue.len()
}

// next returns the kind of the first message in the queue that the backend takes
// notice of, or kindSync if there is none.
func (r *requests) next() kind {
	for i := range r.queue.len() {
		if k := r.queue.at(i).kind(); k != kindMaybe && k != kindCopyEnd {
			return k
		}
	}
	return kindSync
}

// busy reports whether the backend is active, or will be once it has taken what the
// client has sent.
func (r *requests) busy() bool {
	if r.active || r.queue.lost {
		return true
	}
	skip := r.skip
	for i := range r.queue.len() {
		switch r.queue.at(i).kind() {
		case kindBatch:
			return true
		case kindQuery, kindExtended:
			if !skip {
				return true
			}
		case kindSync, kindMaybe:
			skip = false
		}
	}
	return false
}

// unfinished reports whether the backend, once it has taken what the client has
// sent, will wait for the rest of a request.
func (r *requests) unfinished() bool {
	q := &r.queue
	if q.lost || r.doubt {
		return true
	}
	first := 0
	if r.copyIn {
		end, ok := r.copyEnd()
		if !ok {
			return true
		}
		first = end
	}
	if r.skip {
		for first < q.len() && !q.is(first, kindBatch) && !q.is(first, kindSync) {
			first++
		}
		if first == q.len() {
			return true
		}
	}
	for i := q.len() - 1; i >= first; i-- {
		switch q.at(i).kind() {
		case kindBatch, kindSync, kindQuery:
			return false
		case kindExtended, kindPassive:
			return !r.flushed
		}
	}
	return r.open || r.copyIn && !q.is(0, kindQuery)
}
