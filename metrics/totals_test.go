package metrics

import (
	"reflect"
	"testing"
)

func TestTotals(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	none := map[string]uint64{}
	if got, want := s.Totals(), (Totals{Refused: none, Ended: none, CancelRequests: none}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	play(s)
	if got, want := s.Totals(), (Totals{
		Accepted: 6, Starting: 1, Open: 1,
		Refused:        map[string]uint64{"probe": 1, "certificate_revoked": 1},
		Ended:          map[string]uint64{"client_closed": 1},
		CancelRequests: map[string]uint64{"forwarded": 1},
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
