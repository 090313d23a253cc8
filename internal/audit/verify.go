package audit

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Verified is what Verify has found.
type Verified struct {
	Lines    int
	First    uint64   // the sequence number of the first line
	Head     Head     // of the last line
	Problems []string // each with its file and line; empty: none
	Trails   int      // in these files; more than one: the file was missing at a start
	Breaks   []string // each place where another trail begins
}

// place is a line of a file, with what links it to its neighbours.
type place struct {
	linked
	file string
	line int
	hash string
	bad  error // it is not a line of a trail
}

func (p *place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

// Verify reads the files of a trail, rotated ones included, in any order, and those that end in
// .gz unpacked. It finds lines that were changed, removed or moved. It cannot find
// that the newest lines were cut off, or the last one changed: for that compare Head
// with what the gate has reported.
func Verify(files []string) (v Verified, err error) {
	var parts [][]place
	for _, name := range files {
		part, err := readPlaces(name)
		if err != nil {
			return v, err
		}
		if len(part) > 0 {
			parts = append(parts, part)
		}
	}
	all := slices.Concat(inOrder(parts)...)
	if len(all) == 0 {
		return v, errors.New("there is no line")
	}
	v.Lines, v.First, v.Trails = len(all), all[0].Sequence, 1
	problem := func(format string, args ...any) { v.Problems = append(v.Problems, fmt.Sprintf(format, args...)) }
	intact := func(i int) bool { // the line after i, if there is one, knows it as it is
		return i+1 >= len(all) || all[i+1].bad == nil && all[i+1].Previous == all[i].hash
	}
	for i := range all {
		p := &all[i]
		if p.bad != nil {
			problem("%s: %v", p, p.bad)
			continue
		}
		if i == 0 || all[i-1].bad != nil {
			continue
		}
		before := &all[i-1]
		switch follows := p.Sequence == before.Sequence+1; {
		case p.Previous == before.hash && follows:
		case p.Sequence == 1 && p.Previous == noHash:
			v.Trails++
			v.Breaks = append(v.Breaks, fmt.Sprintf("%s: another trail begins here; the one before ends with line %d, at %s", p, before.Sequence, before))
		case follows && intact(i):
			problem("%s: the line was changed: the next one has another hash of it", before)
		case follows:
			problem("%s: the line was changed: its hash of the line before is wrong", p)
		case intact(i-1) && intact(i):
			problem("%s: the sequence number %d follows %d", p, p.Sequence, before.Sequence)
		case p.Sequence > before.Sequence:
			problem("%s: %d lines are missing before it: %d follows %d", p, p.Sequence-before.Sequence-1, p.Sequence, before.Sequence)
		default:
			problem("%s: the lines are in another order: %d follows %d", p, p.Sequence, before.Sequence)
		}
	}
	last := &all[len(all)-1]
	v.Head = Head{last.Sequence, last.hash}
	return v, nil
}

// inOrder returns files in the order of their lines. A file follows the one whose last
// line it has the hash of. The first files of what so belongs together, which are several
// with two trails or with damage, are in the order of their times, then their numbers.
func inOrder(parts [][]place) (ordered [][]place) {
	ends := make(map[string]int, len(parts)) // by the hash of the last line
	for i, part := range parts {
		ends[part[len(part)-1].hash] = i
	}
	next := make(map[int]int, len(parts))
	var firsts []int
	for i, part := range parts {
		before, found := ends[part[0].Previous]
		if _, taken := next[before]; !found || taken || part[0].bad != nil || before == i {
			firsts = append(firsts, i)
			continue
		}
		next[before] = i
	}
	slices.SortStableFunc(firsts, func(a, b int) int {
		return cmp.Or(firstTime(parts[a]).Compare(firstTime(parts[b])), cmp.Compare(firstSequence(parts[a]), firstSequence(parts[b])))
	})
	for _, i := range firsts {
		for more := true; more; i, more = next[i] {
			ordered = append(ordered, parts[i])
		}
	}
	return ordered
}

// firstTime returns the time of the first line that has one.
func firstTime(part []place) time.Time {
	for i := range part {
		if at, err := time.Parse(time.RFC3339Nano, part[i].Time); err == nil {
			return at
		}
	}
	return time.Time{}
}

// firstSequence returns where a file stands in the trail.
func firstSequence(part []place) uint64 {
	for i := range part {
		if part[i].bad == nil {
			return part[i].Sequence - uint64(i)
		}
	}
	return 0
}

func readPlaces(name string) (all []place, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		p := place{file: name, line: len(all) + 1, hash: hash(lines.Bytes())}
		p.linked, p.bad = parse(lines.Bytes())
		all = append(all, p)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: after line %d: %w", name, len(all), err)
	}
	return all, nil
}
