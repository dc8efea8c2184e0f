<?php
// Ways of a PHP program to meet the end of its memory: eat.php WAY [CODE]. PHP cannot catch a refusal; what it has is
// a function that runs at shutdown.

function work(): int
{
    $table = [];
    for ($i = 0; $i < 4000; $i++) {
        $table[$i % 100] = str_repeat(chr($i % 256), 16 << 10);
    }
    $sum = 0;
    foreach ($table as $name => $block) {
        $sum += $name + ord($block[0]);
    }
    return $sum;
}

[, $way, $code] = $argv;
echo 'pid ', getmypid(), "\n";
$held = [];
switch ($way) {
    case 'strings':
        for (;;) {
            $held[] = str_repeat(chr(count($held) % 256), 64 << 10);
        }
    case 'small':
        for (;;) {
            $held[] = ['name' => count($held)];
        }
    case 'double':
        for ($text = 'x';; $text .= $text) {
        }
    case 'shutdown':
        register_shutdown_function(function () use (&$held) {
            $held = null;
            fwrite(STDERR, "eat: cleaned up\n");
        });
        for (;;) {
            $held[] = str_repeat(chr(count($held) % 256), 64 << 10);
        }
    case 'own-limit':
        // PHP's own limit, set by the user, lies below ours: its stop is the program's own.
        ini_set('memory_limit', '16M');
        for (;;) {
            $held[] = str_repeat(chr(count($held) % 256), 64 << 10);
        }
    case 'own':
        echo 'own ', work(), "\n";
        exit((int) $code);
}
exit(77);
