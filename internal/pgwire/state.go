package pgwire

import "errors"

// TrackerState is a Tracker outside of its process.
type TrackerState struct {
	Backend  FrameState   `json:"backend"`
	Client   FrameState   `json:"client"`
	Last     ReportState  `json:"last"`
	Status   byte         `json:"status"`
	Ended    bool         `json:"ended"`
	Left     bool         `json:"left"`
	Requests RequestState `json:"requests"`
}

// FrameState is where in a message one direction of a Tracker is.
type FrameState struct {
	Rest   uint32          `json:"rest"`
	Have   uint8           `json:"have"`
	Broken bool            `json:"broken"`
	Header [headerLen]byte `json:"header"`
}

// ReportState is what was read of the backend's last message.
type ReportState struct {
	Field    byte    `json:"field"`
	N        uint8   `json:"n"`
	Begun    bool    `json:"begun"`
	Complete bool    `json:"complete"`
	Plain    bool    `json:"plain"`
	Fatal    bool    `json:"fatal"`
	Value    [6]byte `json:"value"`
	Code     [5]byte `json:"code"`
}

// RequestState is what the backend has not answered yet.
type RequestState struct {
	Runs     []uint32 `json:"runs"`
	Lost     bool     `json:"lost"`
	Active   bool     `json:"active"`
	Open     bool     `json:"open"`
	Skip     bool     `json:"skip"`
	Answered bool     `json:"answered"`
	CopyIn   bool     `json:"copy_in"`
	CopyBoth bool     `json:"copy_both"`
	Flushed  bool     `json:"flushed"`
	Doubt    bool     `json:"doubt"`
}

// State returns it. The login must be over.
func (t *Tracker) State() TrackerState {
	r := &t.requests
	s := TrackerState{
		Backend: t.backend.state(), Client: t.client.state(), Status: t.status, Ended: t.ended, Left: t.left,
		Last: ReportState{t.last.field, t.last.n, t.last.begun, t.last.complete, t.last.plain, t.last.fatal, t.last.value, t.last.code},
		Requests: RequestState{
			Lost: r.queue.lost, Active: r.active, Open: r.open, Skip: r.skip, Answered: r.answered, CopyIn: r.copyIn, CopyBoth: r.copyBoth,
			Flushed: r.flushed, Doubt: r.doubt,
		},
	}
	for i := range r.queue.len() {
		s.Requests.Runs = append(s.Requests.Runs, uint32(r.queue.at(i)))
	}
	return s
}

func (f *frames) state() FrameState { return FrameState{f.rest, f.have, f.broken, f.header} }

var errTrackerState = errors.New("not the state of a session's messages")

// Restore makes t, which must be new, what another process has returned by State. It fails for what State
// cannot have returned.
func (t *Tracker) Restore(s TrackerState) error {
	if s.Status == 0 || !s.Backend.possible() || !s.Client.possible() || int(s.Last.N) > len(s.Last.Value) {
		return errTrackerState
	}
	r := s.Requests
	*t = Tracker{
		backend: s.Backend.frames(), client: s.Client.frames(), status: s.Status, ended: s.Ended, left: s.Left,
		last: report{s.Last.Field, s.Last.N, s.Last.Begun, s.Last.Complete, s.Last.Plain, s.Last.Fatal, s.Last.Value, s.Last.Code},
		requests: requests{
			active: r.Active, open: r.Open, skip: r.Skip, answered: r.Answered, copyIn: r.CopyIn, copyBoth: r.CopyBoth,
			flushed: r.Flushed, doubt: r.Doubt,
		},
	}
	q := &t.requests.queue
	q.lost = r.Lost
	if len(r.Runs) > len(q.few)+maxRuns {
		return errTrackerState
	}
	for i, one := range r.Runs {
		if run(one).kind() >= kindNone || run(one).n() == 0 {
			return errTrackerState
		}
		if i < len(q.few) {
			q.few[i] = run(one)
			q.n++
		} else {
			q.more = append(q.more, run(one))
		}
	}
	return nil
}

func (s FrameState) frames() frames { return frames{s.Rest, s.Have, s.Broken, s.Header} }

func (s FrameState) possible() bool { return s.Have <= headerLen && s.Rest < 1<<31 }
