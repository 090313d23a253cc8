package acl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a sandbox or a container may not have the time zones of the system
)

// schedule is when a rule is in force. It is immutable.
type schedule struct {
	text        string // of the options, to compare two
	from, until time.Time
	weekdays    []time.Weekday // nil: all
	hours       []clockRange   // nil: all day
	zone        *time.Location // of weekdays and hours
}

// clockRange is a range of the clock, in minutes of the day, its end excluded. One that
// goes over midnight has an end that is not after its start, and belongs to the day on
// which it begins.
type clockRange struct{ start, end int }

const dayMinutes = 24 * 60

// holds reports whether the rule is in force at a time. It reads the local clock, so it
// follows daylight saving: an hour that is skipped does not occur, and one that occurs
// twice counts twice.
func (s *schedule) holds(at time.Time) bool {
	switch {
	case s == nil:
		return true
	case at.IsZero(),
		!s.from.IsZero() && at.Before(s.from),
		!s.until.IsZero() && !at.Before(s.until):
		return false
	case s.zone == nil:
		return true
	}
	local := at.In(s.zone)
	minute := local.Hour()*60 + local.Minute()
	today, yesterday := local.Weekday(), (local.Weekday()+6)%7
	if s.hours == nil {
		return s.hasDay(today)
	}
	return slices.ContainsFunc(s.hours, func(r clockRange) bool {
		if r.start < r.end {
			return r.start <= minute && minute < r.end && s.hasDay(today)
		}
		return minute >= r.start && s.hasDay(today) || minute < r.end && s.hasDay(yesterday)
	})
}

func (s *schedule) hasDay(d time.Weekday) bool {
	return s.weekdays == nil || slices.Contains(s.weekdays, d)
}

// nextChange returns the first moment after a time at which holds changes; the zero time:
// it does not, as far as a week shows.
func (s *schedule) nextChange(after time.Time) time.Time {
	if s == nil {
		return time.Time{}
	}
	moments := []time.Time{s.from, s.until}
	if s.zone != nil {
		moments = append(moments, s.clockChanges(after)...)
		if s.from.After(after) {
			moments = append(moments, s.clockChanges(s.from)...)
		}
	}
	slices.SortFunc(moments, time.Time.Compare)
	for _, m := range moments {
		if m.After(after) && s.holds(m) != s.holds(m.Add(-time.Nanosecond)) {
			return m
		}
	}
	return time.Time{}
}

// clockChanges returns every moment of the next days at which the local clock can enter or
// leave a range. Where daylight saving begins or ends, time.Date does not say which of
// two moments it returns, so both are there.
func (s *schedule) clockChanges(after time.Time) (moments []time.Time) {
	minutes := []int{0}
	for _, r := range s.hours {
		minutes = append(minutes, r.start, r.end)
	}
	local := after.In(s.zone)
	const days = 9 // a week, the night that goes into it, and a night of daylight saving
	for day := range days {
		for _, minute := range minutes {
			m := time.Date(local.Year(), local.Month(), local.Day()+day, 0, minute, 0, 0, s.zone)
			moments = append(moments, m)
			if start, end := m.ZoneBounds(); near(start, m) || near(end, m) {
				moments = append(moments, m.Add(-time.Hour), m.Add(-time.Hour/2), m.Add(time.Hour/2), m.Add(time.Hour), start, end)
			}
		}
	}
	return moments
}

func near(a, b time.Time) bool {
	const most = 25 * time.Hour
	d := a.Sub(b)
	return -most < d && d < most
}

// Over reports whether the rule is never in force again after a time.
func (rule *Rule) Over(at time.Time) bool {
	s := rule.when
	return s != nil && !s.until.IsZero() && !at.Before(s.until)
}

// Never reports whether the rule is not in force at any moment after a time, although it is
// not over: its weekdays or hours do not occur between its from and until.
func (rule *Rule) Never(at time.Time) bool {
	s := rule.when
	if s == nil || rule.Over(at) {
		return false
	}
	if s.from.After(at) {
		at = s.from
	}
	return !s.holds(at) && s.nextChange(at).IsZero()
}

// NextChange returns the first moment after a time at which a rule comes into force or
// ends; the zero time: none does.
func (r *Rules) NextChange(after time.Time) (next time.Time) {
	if r == nil {
		return next
	}
	for _, rule := range r.list {
		if m := rule.when.nextChange(after); !m.IsZero() && (next.IsZero() || m.Before(next)) {
			next = m
		}
	}
	return next
}

// schedule parses when a rule is in force; nil: always.
func (p *ruleParser) schedule(o RuleOptions) *schedule {
	s := &schedule{text: fmt.Sprint(o.From, o.Until, o.Weekdays, o.Hours, o.Timezone)}
	s.from, s.until = p.moment(".from", o.From), p.moment(".until", o.Until)
	if !s.from.IsZero() && !s.until.IsZero() && !s.from.Before(s.until) {
		p.errorf(".until", "%s is not after from, %s, so the rule could never match", o.Until, o.From)
	}
	for i, text := range p.entries(".weekdays", o.Weekdays) {
		days, ok := parseWeekdays(text)
		if !ok {
			p.errorf(fmt.Sprintf(".weekdays[%d]", i), "%q is not a day or a range of days; write mon, tue, wed, thu, fri, sat, sun, or mon-fri", text)
		}
		s.weekdays = append(s.weekdays, days...)
	}
	for i, text := range p.entries(".hours", o.Hours) {
		r, ok := parseClockRange(text)
		if !ok {
			p.errorf(fmt.Sprintf(".hours[%d]", i), "%q is not a range of the clock; write it like 8-18, 08:30-17:00, or 22-6 for a night", text)
		}
		s.hours = append(s.hours, r)
	}
	switch clock := len(o.Weekdays)+len(o.Hours) > 0; {
	case clock && o.Timezone == "":
		p.errorf("", "has weekdays or hours and no timezone; write timezone: UTC, or a name like Europe/Zurich")
	case !clock && o.Timezone != "":
		p.errorf(".timezone", "has no effect without weekdays or hours; remove it")
	case clock:
		zone, err := time.LoadLocation(o.Timezone)
		if err != nil || o.Timezone == "Local" {
			p.errorf(".timezone", "%q is not known; write UTC, or a name of the IANA time zones like Europe/Zurich", o.Timezone)
			zone = time.UTC
		}
		s.zone = zone
	}
	if s.from.IsZero() && s.until.IsZero() && s.zone == nil {
		return nil
	}
	return s
}

func (p *ruleParser) moment(below, text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.IsZero() {
		p.errorf(below, "%q is not a time; write it like 2027-01-31T12:00:00Z or 2027-01-31T13:00:00+01:00", text)
	}
	return at
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// parseWeekdays reads a day, or a range of days, which may go over the end of the week.
func parseWeekdays(text string) (days []time.Weekday, ok bool) {
	first, last, isRange := strings.Cut(strings.ToLower(text), "-")
	if !isRange {
		last = first
	}
	a, b := dayNumber(first), dayNumber(last)
	if a < 0 || b < 0 {
		return nil, false
	}
	for d := a; ; d = (d + 1) % len(dayNames) {
		if days = append(days, time.Weekday(d)); d == b {
			return days, true
		}
	}
}

// dayNumber returns -1 for what is not a day.
func dayNumber(name string) int {
	return slices.IndexFunc(dayNames, func(short string) bool {
		return name == short || name == strings.ToLower(time.Weekday(slices.Index(dayNames, short)).String())
	})
}

// parseClockRange reads a range of the clock. Only its end may be 24.
func parseClockRange(text string) (r clockRange, ok bool) {
	first, last, found := strings.Cut(text, "-")
	start, startOK := parseClock(first)
	end, endOK := parseClock(last)
	return clockRange{start, end % dayMinutes}, found && startOK && endOK && start != end && start < dayMinutes
}

// parseClock reads an hour, or an hour and minutes, as minutes of the day.
func parseClock(text string) (minutes int, ok bool) {
	hour, minute, hasMinutes := strings.Cut(text, ":")
	if !hasMinutes {
		minute = "00"
	}
	h, err := strconv.ParseUint(hour, 10, 8)
	m, err2 := strconv.ParseUint(minute, 10, 8)
	minutes = int(h)*60 + int(m)
	return minutes, err == nil && err2 == nil && len(hour) <= 2 && len(minute) == 2 && m < 60 && minutes <= dayMinutes
}
