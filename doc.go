// Package muster holds no code: it is the root of the house, whose rooms are
// the folders below it. The table of who may import whom is imports_test.go;
// the program is cmd/muster.
package muster
