// Ways of a Go program to meet the end of its memory: eat WAY [CODE]. Go cannot recover from a refusal.
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

var held [][]byte

func eat() {
	for {
		block := make([]byte, 64<<10)
		for i := range block {
			block[i] = 7
		}
		held = append(held, block)
	}
}

func work() int {
	table := map[string][]byte{}
	for i := 0; i < 4000; i++ {
		table[strconv.Itoa(i%100)] = make([]byte, 16<<10)
	}
	sum := 0
	for name, block := range table {
		sum += len(name) + len(block)
	}
	return sum
}

func main() {
	fmt.Println("pid", os.Getpid())
	code := 0
	if len(os.Args) > 2 {
		code, _ = strconv.Atoi(os.Args[2])
	}
	switch os.Args[1] {
	case "slices":
		eat()
	case "huge":
		held = append(held, make([]byte, 1<<40))
	case "goroutine":
		done := make(chan bool)
		go eat()
		<-done
	case "recover-mmap":
		// The one refusal that a Go program meets as an error.
		if _, err := syscall.Mmap(-1, 0, 1<<40, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON); err == nil {
			os.Exit(77)
		}
		fmt.Println("recovered", work())
		os.Exit(code)
	case "own":
		fmt.Println("own", work())
		os.Exit(code)
	}
	os.Exit(77)
}
