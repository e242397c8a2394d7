package config

import (
	"reflect"
	"sort"
	"strings"
)

// structFields maps a struct's file keys to its field indices.
func structFields(t reflect.Type) map[string]int {
	m := map[string]int{}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name != "" {
			m[name] = i
		}
	}
	return m
}

// taggedField returns the index of the field tagged ",what", or -1.
func taggedField(t reflect.Type, what string) int {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("yaml") == ","+what {
			return i
		}
	}
	return -1
}

func fieldByTag(v reflect.Value, name string) reflect.Value {
	return v.Field(structFields(v.Type())[name])
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// lastName names a value for a message.
func lastName(path string, t reflect.Type) string {
	if path == "" {
		return "the file"
	}
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[i+1:]
	}
	return path
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// didYouMean returns a question naming the nearest known word, or "".
func didYouMean(word string, known []string) string {
	best, bestDistance := "", len(word)/3+2
	for _, k := range known {
		if dist := distance(strings.ToLower(word), strings.ToLower(k)); dist < bestDistance {
			best, bestDistance = k, dist
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean \"" + best + "\"?"
}

// distance is the number of single letters to add, drop, change or swap. Words
// longer than a name may be are not compared.
func distance(a, b string) int {
	if len(a) > MaxNameBytes || len(b) > MaxNameBytes {
		return MaxNameBytes
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
