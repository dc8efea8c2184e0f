// What eater.c does, in a runtime that makes its own system calls.
package main

import "os"

var kept [][]byte

func main() {
	switch os.Args[1] {
	case "checked":
		for {
			block := make([]byte, 1<<20)
			for i := range block {
				block[i] = 1
			}
			kept = append(kept, block)
		}
	case "goroutines":
		// Its last words are about each of them.
		block := make([]byte, 150<<20)
		for i := range block {
			block[i] = 1
		}
		kept = append(kept, block)
		for {
			go func() { select {} }()
		}
	case "threads":
		done := make(chan int)
		for i := 0; i < 64; i++ {
			go func(i int) { done <- len(make([]byte, 1<<20+i)) }(i)
		}
		for i := 0; i < 64; i++ {
			<-done
		}
	case "fail":
		os.Exit(3)
	}
}
