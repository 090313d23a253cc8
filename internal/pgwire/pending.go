package pgwire

import "slices"

// kind is what a run of the client's messages means to the backend.
type kind uint8

const (
	kindQuery    kind = iota // Query or FunctionCall: one ReadyForQuery each
	kindBatch                // extended-protocol messages with their Sync: one ReadyForQuery each
	kindExtended             // Parse, Bind or Execute, and what follows without a Sync
	kindPassive              // Describe and Close before any of those: they do not make the backend active
	kindSync                 // a Sync that ends nothing in the queue
	kindMaybe                // the same, but a COPY that has failed may have ignored it
	kindCopyEnd              // CopyDone or CopyFail
	kindNone                 // of an empty queue
)

// run is a number of messages of one kind.
type run uint32

func newRun(k kind, n uint32) run { return run(n<<3 | uint32(k)) }

func (r run) kind() kind { return kind(r & 7) }
func (r run) n() uint32  { return uint32(r >> 3) }

// maxRuns bounds the queue of a client that mixes kinds of messages without end
// and reads no answer. It is some 200 KiB.
const maxRuns = 50_000

// pending is the queue of the client's messages that the backend has not answered,
// in runs. All that clients usually send are one or two runs, which need no
// allocation.
type pending struct {
	few  [5]run
	n    uint8 // of few
	lost bool  // a queue that was too long has been cut
	more []run // after few; empty unless few is full
}

func (q *pending) len() int { return int(q.n) + len(q.more) }

func (q *pending) at(i int) run {
	if i < int(q.n) {
		return q.few[i]
	}
	return q.more[i-int(q.n)]
}

// head returns the kind of the first run.
func (q *pending) head() kind {
	if q.n == 0 {
		return kindNone
	}
	return q.few[0].kind()
}

// is reports whether run i exists and is of kind k.
func (q *pending) is(i int, k kind) bool {
	return i >= 0 && i < q.len() && q.at(i).kind() == k
}

func (q *pending) set(i int, r run) {
	if i < int(q.n) {
		q.few[i] = r
	} else {
		q.more[i-int(q.n)] = r
	}
}

// push appends one message of kind k.
func (q *pending) push(k kind) {
	last := q.len() - 1
	switch {
	case q.is(last, k):
		q.set(last, newRun(k, min(q.at(last).n()+1, 1<<29-1)))
	case int(q.n) < len(q.few):
		q.few[q.n] = newRun(k, 1)
		q.n++
	case len(q.more) < maxRuns:
		q.more = append(q.more, newRun(k, 1))
	default:
		q.lost = true
	}
}

// take removes one message of run i.
func (q *pending) take(i int) {
	if r := q.at(i); r.n() > 1 {
		q.set(i, newRun(r.kind(), r.n()-1))
		return
	}
	q.remove(i, i+1)
}

// insert puts r before run i, which must be one of the few.
func (q *pending) insert(i int, r run) {
	if int(q.n) == len(q.few) {
		q.more = slices.Insert(q.more, 0, q.few[q.n-1])
	} else {
		q.n++
	}
	copy(q.few[i+1:q.n], q.few[i:])
	q.few[i] = r
}

// remove removes the runs from i to before j.
func (q *pending) remove(i, j int) {
	if i == j {
		return
	}
	few := int(q.n)
	if j > few {
		q.more = slices.Delete(q.more, max(i-few, 0), j-few)
	}
	q.n -= uint8(min(j, few) - min(i, few))
	copy(q.few[min(i, few):q.n], q.few[min(j, few):])
	moved := copy(q.few[q.n:], q.more)
	q.n += uint8(moved)
	if q.more = q.more[moved:]; len(q.more) == 0 {
		q.more = nil // a session that has caught up holds no memory
	}
}
