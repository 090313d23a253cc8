// Package nearest finds the word that somebody meant to write.
package nearest

import "strings"

// Word returns the known word that takes the fewest keystrokes to make of
// name, letter case aside. It is false when more than half of the word would
// have to be retyped: then a guess helps nobody.
func Word(name string, known []string) (best string, ok bool) {
	least := 0
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); best == "" || d < least {
			best, least = k, d
		}
	}
	return best, best != "" && least <= (len(best)+1)/2
}

// distance is Levenshtein's: the insertions, deletions and replacements that
// lead from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
