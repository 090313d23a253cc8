package outcome_test

import (
	"testing"
	"time"

	"pgwicket/internal/outcome"
)

// The client is told the date and whose it is, and nothing of the detail.
func TestRefuseCertificate(t *testing.T) {
	t.Parallel()
	day := time.Date(2027, 3, 4, 23, 59, 0, 0, time.UTC)
	for _, c := range []struct {
		outcome outcome.Outcome
		isCA    bool
		date    time.Time
		want    string
	}{
		{outcome.CertExpired, false, day, "client certificate expired on 2027-03-04"},
		{outcome.CertRevoked, false, day.In(time.FixedZone("", 3600)), "client certificate was revoked on 2027-03-04"},
		{outcome.CertRevoked, true, day, "a CA of the client certificate was revoked on 2027-03-04"},
		{outcome.CertNotYetValid, false, day, "client certificate is not valid before 2027-03-04"},
		{outcome.CertWrongPurpose, true, time.Time{}, "client certificate is not meant for client authentication"},
		{outcome.CRLStale, false, time.Time{}, "client certificate could not be checked for revocation"},
	} {
		r := outcome.RefuseCertificate(c.outcome, c.isCA, c.date, "secret")
		if sqlstate, text := r.Message(); sqlstate != "28000" || text != c.want || r.Detail != "secret" {
			t.Errorf("%v: %s %q, want %q", c.outcome, sqlstate, text, c.want)
		}
	}
}
