// Ways of a Java program to meet the end of its memory: java Eat WAY [CODE].

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.locks.LockSupport;

public class Eat {
    static void eatHeap() {
        List<byte[]> held = new ArrayList<>();
        for (;;) held.add(new byte[1 << 20]);
    }

    static void eatDirect(int size) {
        List<ByteBuffer> held = new ArrayList<>();
        for (;;) held.add(ByteBuffer.allocateDirect(size));
    }

    static void startThreads() throws InterruptedException {
        List<Thread> held = new ArrayList<>();
        for (;;) {
            CountDownLatch used = new CountDownLatch(1);
            Runnable park = () -> {
                useStack(20_000);
                used.countDown();
                for (;;) LockSupport.park();
            };
            Thread thread = new Thread(null, park, "parked", 64 << 20);
            thread.setDaemon(true);
            held.add(thread);
            thread.start();
            used.await();
        }
    }

    static int useStack(int calls) {
        return calls == 0 ? 0 : 1 + useStack(calls - 1);
    }

    static long work() {
        Map<String, byte[]> table = new HashMap<>();
        for (int i = 0; i < 4000; i++) table.put(Integer.toString(i % 100), new byte[16 << 10]);
        long sum = 0;
        for (Map.Entry<String, byte[]> entry : table.entrySet()) sum += entry.getKey().length() + entry.getValue().length;
        return sum;
    }

    public static void main(String[] arguments) throws InterruptedException {
        System.out.println("pid " + ProcessHandle.current().pid());
        System.out.flush();
        int code = arguments.length > 1 ? Integer.parseInt(arguments[1]) : 0;
        switch (arguments[0]) {
            case "heap": case "heap-reserved": eatHeap(); break;
            case "direct": eatDirect(1 << 20); break;
            case "threads": startThreads(); break;
            case "caught":
                try {
                    eatHeap();
                } catch (OutOfMemoryError error) {
                    System.err.println("eat: " + error);
                    System.exit(1);
                }
                break;
            case "recover":
                try {
                    eatHeap();
                } catch (OutOfMemoryError error) {
                    System.out.println("recovered " + work());
                }
                System.exit(code);
                break;
            case "recover-direct":
                try {
                    // Leaves the virtual machine itself the room that it needs.
                    eatDirect(Integer.MAX_VALUE);
                } catch (OutOfMemoryError error) {
                    System.out.println("recovered " + work());
                }
                System.exit(code);
                break;
            case "own":
                System.out.println("own " + work());
                System.exit(code);
                break;
        }
        System.exit(77);
    }
}
